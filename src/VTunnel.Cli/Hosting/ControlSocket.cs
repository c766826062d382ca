using System.Net.Sockets;
using System.Text;
using System.Text.Json;
using VTunnel.Bridge;
using VTunnel.Bridge.State;
using VTunnel.Cli.Commands.Bridge;

namespace VTunnel.Cli.Hosting;

/// <summary>
/// Where a running process answers <c>vtunnel status</c>: a Unix socket that only its owner can open. Who asks sends
/// one line; the answer is a line that says whether there is one, and the answer, to the end. It is also what keeps a second
/// process off the same state.
/// </summary>
internal sealed class ControlSocket : IAsyncDisposable
{
    private const int MaxQuestionBytes = 1024;

    /// <summary>Those who are answered at a time; further ones wait in the socket.</summary>
    private const int MaxAskers = 16;

    private const string Ok = "ok";

    private static readonly TimeSpan ConnectTimeout = TimeSpan.FromSeconds(2);
    private static readonly TimeSpan AnswerTimeout = TimeSpan.FromSeconds(40);
    private static readonly TimeSpan AcceptRetry = TimeSpan.FromMilliseconds(100);

    private readonly Socket _listener;
    private readonly string _path;
    private readonly Func<string, string, Task<object?>> _answer;
    private readonly SemaphoreSlim _places = new(MaxAskers);
    private readonly CancellationTokenSource _stopping = new();
    private readonly Task _accepting;

    private ControlSocket(Socket listener, string path, Func<string, string, Task<object?>> answer)
    {
        _listener = listener;
        _path = path;
        _answer = answer;
        _accepting = AcceptAsync();
    }

    /// <summary>Starts to answer; null where the path is too long for a socket: then there is no status, and nothing keeps a second process off.</summary>
    /// <param name="path">The socket.</param>
    /// <param name="answer">The answer to a question's name and value; null for a question that is not known.</param>
    /// <exception cref="BridgeException">Another process answers there, or the folder cannot be written.</exception>
    public static async Task<ControlSocket?> StartAsync(string path, Func<string, string, Task<object?>> answer)
    {
        if (Encoding.UTF8.GetByteCount(path) > StateDirectory.MaxSocketPathBytes)
            return null;
        if (await CanConnectAsync(path))
            throw new BridgeException(BridgeError.Invalid, $"it runs already: another process answers at {path}; 'vtunnel status' asks it");
        Socket? listener = null;
        try
        {
            listener = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
            var folder = Path.GetDirectoryName(path)!;
            CreatePrivate(Path.GetDirectoryName(folder)!);
            CreatePrivate(folder);
            File.Delete(path);
            listener.Bind(new UnixDomainSocketEndPoint(path));
            if (!OperatingSystem.IsWindows())
                File.SetUnixFileMode(path, UnixFileMode.UserRead | UnixFileMode.UserWrite);
            listener.Listen();
            return new ControlSocket(listener, path, answer);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or SocketException or ArgumentException or NotSupportedException)
        {
            listener?.Dispose();
            throw new BridgeException(BridgeError.Storage, $"{path} cannot be made: {e.Message.TrimEnd('.')}; see to the permissions of its folder", e);
        }
    }

    /// <summary>Asks a running process; null if there is none.</summary>
    /// <exception cref="BridgeException">There is one, and it cannot be asked or does not answer; or it says that it cannot.</exception>
    /// <param name="path">Its socket.</param>
    /// <param name="question">What is asked.</param>
    /// <param name="value">What the question is about.</param>
    /// <param name="patience">How long to wait; null for as long as a probe end to end may take.</param>
    public static async Task<T?> AskAsync<T>(string path, string question, string value = "", TimeSpan? patience = null)
        where T : class
    {
        if (!File.Exists(path))
            return null;
        using var deadline = new CancellationTokenSource(patience ?? AnswerTimeout);
        string answer;
        try
        {
            await using var stream = new NetworkStream(await ConnectAsync(path, deadline.Token), ownsSocket: true);
            await stream.WriteAsync(Encoding.UTF8.GetBytes($"{question} {value}\n"), deadline.Token);
            using var reader = new StreamReader(stream, Encoding.UTF8);
            answer = await reader.ReadToEndAsync(deadline.Token);
        }
        catch (SocketException e) when (e.SocketErrorCode is SocketError.AccessDenied)
        {
            throw new BridgeException(BridgeError.Storage, $"{path} may be asked by its owner alone", e);
        }
        catch (Exception e) when (e is SocketException or IOException)
        {
            // A socket without a process: it ended without cleaning up.
            return null;
        }
        catch (OperationCanceledException e)
        {
            throw new BridgeException(BridgeError.Storage, "the running process does not answer", e);
        }

        var line = answer.IndexOf('\n', StringComparison.Ordinal);
        if (line < 0)
            return null;
        if (answer[..line] != Ok)
            throw new BridgeException(BridgeError.Storage, $"the running process says: {answer[(line + 1)..]}");
        try
        {
            return JsonSerializer.Deserialize(answer.AsSpan(line + 1), CliJson.Of<T>());
        }
        catch (JsonException e)
        {
            throw new BridgeException(BridgeError.Storage, "the running process ended in the middle of its answer, or is of another version", e);
        }
    }

    public async ValueTask DisposeAsync()
    {
        await _stopping.CancelAsync();
        await _accepting;
        _listener.Dispose();
        try
        {
            File.Delete(_path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // The next process removes it.
        }
    }

    private static void CreatePrivate(string folder)
    {
        if (OperatingSystem.IsWindows())
            Directory.CreateDirectory(folder);
        else
            Directory.CreateDirectory(folder, UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.UserExecute);
    }

    private async Task AcceptAsync()
    {
        while (!_stopping.IsCancellationRequested)
        {
            try
            {
                await _places.WaitAsync(_stopping.Token);
                _ = ServeAsync(await _listener.AcceptAsync(_stopping.Token));
            }
            catch (SocketException)
            {
                // Out of file descriptors: whoever asks waits until there are some.
                _places.Release();
                using var retry = new PeriodicTimer(AcceptRetry);
                await retry.WaitForNextTickAsync(CancellationToken.None);
            }
            catch (OperationCanceledException)
            {
                return;
            }
        }
    }

    /// <summary>Answers one question. Never throws.</summary>
    private async Task ServeAsync(Socket client)
    {
        try
        {
            await using var stream = new NetworkStream(client, ownsSocket: true);
            using var deadline = CancellationTokenSource.CreateLinkedTokenSource(_stopping.Token);
            deadline.CancelAfter(AnswerTimeout);
            var question = await ReadLineAsync(stream, deadline.Token);
            var answer = await AnswerAsync(question.Split(' ', 2));
            await stream.WriteAsync(Encoding.UTF8.GetBytes(answer), deadline.Token);
        }
        catch (Exception e) when (e is IOException or SocketException or OperationCanceledException or ObjectDisposedException)
        {
            // Whoever asked is gone, or this process is about to be.
        }
        finally
        {
            _places.Release();
        }
    }

    private async Task<string> AnswerAsync(string[] question)
    {
        try
        {
            return await _answer(question[0], question.ElementAtOrDefault(1) ?? "") is { } content
                ? $"{Ok}\n{JsonSerializer.Serialize(content, CliJson.Of(content.GetType()))}"
                : "failed\nit does not know this question; it is of another version";
        }
        catch (Exception e) when (e is not OperationCanceledException)
        {
            // Whatever it is, it is told to the one who can do something about it.
            return $"failed\n{e.Message}";
        }
    }

    private static async Task<string> ReadLineAsync(NetworkStream stream, CancellationToken cancellationToken)
    {
        var buffer = new byte[MaxQuestionBytes];
        for (var length = 0; length < buffer.Length;)
        {
            var read = await stream.ReadAsync(buffer.AsMemory(length), cancellationToken);
            var end = buffer.AsSpan(length, read).IndexOf((byte)'\n');
            if (end >= 0)
                return Encoding.UTF8.GetString(buffer, 0, length + end);
            if (read == 0)
                throw new IOException("The question has no end.");
            length += read;
        }

        throw new IOException($"A question has at most {MaxQuestionBytes} bytes.");
    }

    /// <summary>Whether a process answers there.</summary>
    public static async Task<bool> CanConnectAsync(string path)
    {
        if (!File.Exists(path))
            return false;
        try
        {
            using var deadline = new CancellationTokenSource(ConnectTimeout);
            using var socket = await ConnectAsync(path, deadline.Token);
            return true;
        }
        catch (Exception e) when (e is SocketException or OperationCanceledException)
        {
            return false;
        }
    }

    private static async Task<Socket> ConnectAsync(string path, CancellationToken cancellationToken)
    {
        var socket = new Socket(AddressFamily.Unix, SocketType.Stream, ProtocolType.Unspecified);
        try
        {
            await socket.ConnectAsync(new UnixDomainSocketEndPoint(path), cancellationToken);
            return socket;
        }
        catch
        {
            socket.Dispose();
            throw;
        }
    }
}
