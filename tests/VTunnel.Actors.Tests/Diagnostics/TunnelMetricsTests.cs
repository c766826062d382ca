using System.Collections.Concurrent;
using System.Diagnostics.Metrics;
using System.Net;
using System.Net.Sockets;
using Akka.Actor;
using Microsoft.Extensions.DependencyInjection;
using VTunnel.Actors.Tests.Hosting;
using VTunnel.Diagnostics;
using VTunnel.Hosting;
using VTunnel.Options;
using VTunnel.Routing;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.Actors.Tests.Diagnostics;

public sealed class TunnelMetricsTests
{
    [Theory]
    [InlineData(ProtocolPreference.V1)]
    [InlineData(ProtocolPreference.V2)]
    public async Task What_a_tunnel_does_is_counted_at_both_ends(ProtocolPreference protocol)
    {
        await using var target = TargetServer.StartEcho();
        await using var app = await TunnelPair.StartServerAsync(options => options.Protocol = protocol);
        var factory = app.Services.GetRequiredService<IMeterFactory>();
        using var books = new MeasuredTotals(factory);
        using var clientSystem = ActorSystem.Create("metrics");
        await using var client = TunnelClient.Create(
            clientSystem,
            new TunnelClientOptions { Server = TunnelPair.AddressOf(app) },
            metrics: app.Services.GetRequiredService<TunnelMetrics>());
        await client.ConnectAsync().WaitAsync(TestTimeouts.Long);
        var port = FreePorts.Next();
        await client.ListenAsync(new ForwardRule(port, new ForwardTarget(TargetScheme.Tcp, "127.0.0.1", target.Port))).WaitAsync(TestTimeouts.Long);
        Assert.Equal(1, books["vtunnel.sessions role=server"]);
        Assert.Equal(1, books["vtunnel.sessions role=client"]);
        Assert.Equal(1, books["vtunnel.listeners role=server"]);

        using (var visitor = new TcpClient())
        {
            await visitor.ConnectAsync(IPAddress.Loopback, port);
            await visitor.GetStream().WriteAsync(new byte[1000]);
            await visitor.GetStream().ReadExactlyAsync(new byte[1000]).AsTask().WaitAsync(TestTimeouts.Long);
            foreach (var role in new[] { "server", "client" })
            {
                Assert.Equal(1, books[$"vtunnel.streams role={role}"]);
                // Counted when it has been sent, which may be after the visitor has seen it.
                await books.WaitForAsync($"vtunnel.stream.bytes direction=in role={role}", 1000);
                await books.WaitForAsync($"vtunnel.stream.bytes direction=out role={role}", 1000);
            }
        }

        await books.WaitForAsync("vtunnel.streams.ended end=completed role=server", 1);
        await books.WaitForAsync("vtunnel.streams.ended end=completed role=client", 1);
        var over = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        var system = app.Services.GetRequiredService<ActorSystem>();
        system.EventStream.Subscribe(system.ActorOf(Props.Create(() => new EndOfSession(over))), typeof(TunnelEvents.SessionEnded));
        await client.DisposeAsync();
        await over.Task.WaitAsync(TestTimeouts.Long);
        Assert.Equal(0, books["vtunnel.sessions role=server"]);
        Assert.Equal(0, books["vtunnel.listeners role=server"]);
        foreach (var role in new[] { "server", "client" })
        {
            Assert.Equal(0, books[$"vtunnel.streams role={role}"]);
            Assert.Equal(0, books[$"vtunnel.sessions role={role}"]);
        }
    }

    [Fact]
    public void Instruments_have_the_names_and_units_of_the_documents()
    {
        using var provider = new ServiceCollection().AddMetrics().BuildServiceProvider();
        var factory = provider.GetRequiredService<IMeterFactory>();
        _ = new TunnelMetrics(factory);
        using var books = new MeasuredTotals(factory);
        Assert.Equal(TunnelMetricsNames.All, books.Instruments.Order());
    }

    [Fact]
    public void A_listener_that_comes_late_sees_what_there_is()
    {
        using var provider = new ServiceCollection().AddMetrics().BuildServiceProvider();
        var factory = provider.GetRequiredService<IMeterFactory>();
        var server = new TunnelMetrics(factory).For(TunnelRole.Server);
        server.SessionStarted();
        server.SessionStarted();
        server.ListenerOpened();
        server.StreamStarted();
        using var books = new MeasuredTotals(factory);
        Assert.Equal(2, books["vtunnel.sessions role=server"]);
        Assert.Equal(1, books["vtunnel.listeners role=server"]);
        Assert.Equal(1, books["vtunnel.streams role=server"]);
        server.SessionEnded();
        server.SessionEnded();
        server.ListenerClosed();
        server.StreamEnded(StreamEnd.Completed);
        Assert.Equal(0, books["vtunnel.sessions role=server"]);
        Assert.Equal(0, books["vtunnel.listeners role=server"]);
        Assert.Equal(0, books["vtunnel.streams role=server"]);
    }

    [Fact]
    public void Every_end_of_a_stream_has_a_tag_of_its_own()
    {
        var names = Enum.GetValues<StreamEnd>().Select(RoleMetrics.Name).ToArray();
        Assert.Equal(names.Length, names.Distinct().Count());
        Assert.All(names, name => Assert.Matches("^[a-z_]+$", name));
    }

    private sealed class EndOfSession(TaskCompletionSource over) : UntypedActor
    {
        protected override void OnReceive(object message) => over.TrySetResult();
    }

    /// <summary>Adds up what the meters of one factory count, by instrument and tags, and asks for levels when they are read.</summary>
    private sealed class MeasuredTotals : IDisposable
    {
        private readonly MeterListener _listener = new();
        private readonly Dictionary<string, long> _totals = [];
        private readonly List<(string Text, long Value, TaskCompletionSource Reached)> _waiting = [];
        private readonly ConcurrentQueue<(string Name, string Unit)> _instruments = new();

        public MeasuredTotals(IMeterFactory factory)
        {
            _listener.InstrumentPublished = (instrument, listener) =>
            {
                if (instrument.Meter.Name != TunnelMetrics.MeterName || instrument.Meter.Scope != factory)
                    return;
                _instruments.Enqueue((instrument.Name, instrument.Unit!));
                listener.EnableMeasurementEvents(instrument);
            };
            _listener.SetMeasurementEventCallback<long>(OnMeasured);
            _listener.Start();
        }

        public IEnumerable<(string Name, string Unit)> Instruments => _instruments;

        public long this[string text]
        {
            get
            {
                _listener.RecordObservableInstruments();
                lock (_totals)
                    return _totals.GetValueOrDefault(text);
            }
        }

        public Task WaitForAsync(string text, long value)
        {
            lock (_totals)
            {
                if (_totals.GetValueOrDefault(text) == value)
                    return Task.CompletedTask;
                var reached = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
                _waiting.Add((text, value, reached));
                return reached.Task.WaitAsync(TestTimeouts.Long);
            }
        }

        private void OnMeasured(Instrument instrument, long value, ReadOnlySpan<KeyValuePair<string, object?>> tags, object? state)
        {
            var text = string.Join(' ', tags.ToArray().Select(tag => $"{tag.Key}={tag.Value}").Order(StringComparer.Ordinal).Prepend(instrument.Name));
            lock (_totals)
            {
                var total = _totals[text] = instrument.IsObservable ? value : _totals.GetValueOrDefault(text) + value;
                foreach (var waiting in _waiting.Where(waiting => waiting.Text == text && waiting.Value == total))
                    waiting.Reached.TrySetResult();
            }
        }

        public void Dispose() => _listener.Dispose();
    }
}

/// <summary>The instruments that there are, in order; docs/operations.md lists them.</summary>
internal static class TunnelMetricsNames
{
    public static readonly IReadOnlyList<(string Name, string Unit)> All =
    [
        ("vtunnel.listeners", "{listener}"),
        ("vtunnel.sessions", "{session}"),
        ("vtunnel.stream.bytes", "By"),
        ("vtunnel.streams", "{stream}"),
        ("vtunnel.streams.ended", "{stream}"),
    ];
}
