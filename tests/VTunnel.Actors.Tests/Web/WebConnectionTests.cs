using Microsoft.AspNetCore.Hosting.Server;
using Microsoft.AspNetCore.Http;
using Microsoft.AspNetCore.Http.Features;
using Microsoft.Extensions.Logging;
using VTunnel.Actors.Tests.Testing;
using VTunnel.Testing;
using VTunnel.Web;

namespace VTunnel.Actors.Tests.Web;

public sealed class WebConnectionTests
{
    [Fact]
    public async Task A_visitor_who_hangs_up_before_the_answer_ends_his_request_and_is_nobodys_error()
    {
        var log = new ListLogger();
        using var loggers = LoggerFactory.Create(builder => builder.SetMinimumLevel(LogLevel.Trace).AddProvider(new OneLogger(log)));
        var application = new Answering();
        await using var server = await WebServer.StartAsync(application, loggers, _ => { });
        var visitor = new HungUpStream("GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"u8.ToArray());
        var connection = new WebConnection(visitor, visitor.Abort, null);
        await server.ServeAsync(connection, isHttp2: false);

        await application.RequestAborted.Task.WaitAsync(TestTimeouts.Step);
        await connection.Disposed.WaitAsync(TestTimeouts.Step);
        Assert.DoesNotContain(log.Lines, line => line.Level >= LogLevel.Warning);
    }

    private sealed class Answering : IHttpApplication<HttpContext>
    {
        public TaskCompletionSource RequestAborted { get; } = new(TaskCreationOptions.RunContinuationsAsynchronously);

        public HttpContext CreateContext(IFeatureCollection contextFeatures) => new DefaultHttpContext(contextFeatures);

        public async Task ProcessRequestAsync(HttpContext context)
        {
            await using var registration = context.RequestAborted.Register(() => RequestAborted.TrySetResult());
            context.Response.StatusCode = StatusCodes.Status502BadGateway;
            await context.Response.WriteAsync("nobody reads this");
            await RequestAborted.Task;
        }

        public void DisposeContext(HttpContext context, Exception? exception)
        {
            // Everything of a request ends with it.
        }
    }

    private sealed class OneLogger(ListLogger log) : ILoggerProvider
    {
        public ILogger CreateLogger(string categoryName) => log;

        public void Dispose()
        {
            // The test's own.
        }
    }

    /// <summary>Has sent a request and takes no answer; a read ends when it is aborted.</summary>
    private sealed class HungUpStream(byte[] request) : AsyncStream
    {
        private readonly TaskCompletionSource _over = new(TaskCreationOptions.RunContinuationsAsynchronously);
        private byte[] _left = request;

        public void Abort() => _over.TrySetException(new IOException("aborted"));

        public override async ValueTask<int> ReadAsync(Memory<byte> buffer, CancellationToken cancellationToken = default)
        {
            if (_left.Length == 0)
            {
                await _over.Task.WaitAsync(cancellationToken);
                return 0;
            }

            var count = Math.Min(buffer.Length, _left.Length);
            _left.AsMemory(0, count).CopyTo(buffer);
            _left = _left[count..];
            return count;
        }

        public override ValueTask WriteAsync(ReadOnlyMemory<byte> buffer, CancellationToken cancellationToken = default) =>
            ValueTask.FromException(new IOException("Connection reset by peer"));
    }
}
