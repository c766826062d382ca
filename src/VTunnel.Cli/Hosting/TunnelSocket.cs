using Microsoft.Extensions.Logging;
using VTunnel.Bridge;
using VTunnel.Bridge.State;
using VTunnel.Cli.Settings;
using VTunnel.Cli.Syntax;
using VTunnel.Supervision;

namespace VTunnel.Cli.Hosting;

/// <summary>What a running <c>vtunnel server</c> says of itself.</summary>
internal sealed record RunningServer(int Process, IReadOnlyList<string> Listening, string? Proxy, TunnelServerProtocol.ServerStatus Status);

/// <summary>What a running <c>vtunnel client</c> says of itself.</summary>
internal sealed record RunningClient(int Process, TunnelClientProtocol.ClientStatus Status);

/// <summary>What became of a question to a process.</summary>
/// <param name="Name">A server's or client's number, a relay, or a context's name.</param>
/// <param name="Answer">What it says of itself; null where it does not.</param>
/// <param name="Problem">Why it does not.</param>
internal sealed record Asked<T>(string Name, T? Answer, string? Problem)
    where T : class;

/// <summary>The <see cref="ControlSocket"/> of a server or client: one per process, since a machine may run as many as it likes.</summary>
internal static partial class TunnelSocket
{
    public const string Server = "server";
    public const string Client = "client";

    /// <summary>In no name of a context.</summary>
    private const char Separator = '~';

    private const int MaxNamesakes = 16;

    /// <summary>Servers and clients answer for themselves, within two seconds.</summary>
    private static readonly TimeSpan Patience = TimeSpan.FromSeconds(5);

    private static readonly TimeSpan StaleAfter = TimeSpan.FromSeconds(1);

    public static readonly OptionSpec StateDir = new("state-dir", "DIR", "Where 'vtunnel status' finds this process, by a socket in its folder run; XDG_STATE_HOME moves the default.") { Default = "~/.local/state/vtunnel" };

    /// <summary>Reads the option; null, and the problem, where nothing says where to be found.</summary>
    public static (string? Folder, string? Problem) ReadFolder(SettingsReader settings)
    {
        if (settings.OneOrNull<string>(StateDir, ValueParsers.Folder) is { } folder)
            return (folder, null);
        try
        {
            return (StateDirectory.DefaultPath(Environment.GetEnvironmentVariable), null);
        }
        catch (BridgeException e)
        {
            return (null, e.Message);
        }
    }

    /// <summary>Starts to answer. A process that cannot be asked does its work all the same, and says why in the log.</summary>
    public static async Task<ControlSocket?> StartAsync((string? Folder, string? Problem) place, string role, Func<Task<object?>> status, ILogger logger)
    {
        if (place.Folder is null)
        {
            LogCannotBeAsked(logger, place.Problem!);
            return null;
        }

        try
        {
            var state = new StateDirectory(place.Folder);
            var name = $"{role}{Separator}{Environment.ProcessId}";

            // In containers that share a folder every process may have the same number.
            for (var n = 2; await ControlSocket.CanConnectAsync(state.SocketPath(name)) && n <= MaxNamesakes; n++)
                name = $"{role}{Separator}{Environment.ProcessId}-{n}";
            var socket = await ControlSocket.StartAsync(state.SocketPath(name), async (question, _) => question == "status" ? await status() : null);
            if (socket is null)
                LogCannotBeAsked(logger, $"{state.SocketPath(name)} is too long for a socket; give a shorter --state-dir");
            return socket;
        }
        catch (Exception e)
        {
            // Whatever it is: a tunnel is worth more than its status.
            LogCannotBeAsked(logger, e.Message);
            return null;
        }
    }

    /// <summary>The answers of all processes of a role, in the order of their numbers. A process that ends meanwhile is not among them.</summary>
    public static async Task<IReadOnlyList<Asked<T>>> AskAllAsync<T>(StateDirectory state, string role)
        where T : class
    {
        var paths = state.SocketPaths($"{role}{Separator}").Select(path => (Name: NameOf(path), path)).OrderBy(each => each.Name.Length).ThenBy(each => each.Name, StringComparer.Ordinal);
        var answers = await Task.WhenAll(paths.Select(each => AskAsync<T>(each.Name, each.path)));
        return [.. answers.OfType<Asked<T>>()];
    }

    private static async Task<Asked<T>?> AskAsync<T>(string process, string path)
        where T : class
    {
        try
        {
            if (await ControlSocket.AskAsync<T>(path, "status", patience: Patience) is { } answer)
                return new Asked<T>(process, answer, null);

            // Nobody listens. What has just been made may be about to.
            if (TimeProvider.System.GetUtcNow().UtcDateTime - File.GetLastWriteTimeUtc(path) > StaleAfter)
                Remove(path);
            return null;
        }
        catch (BridgeException e)
        {
            return new Asked<T>(process, null, e.Message);
        }
    }

    private static string NameOf(string path)
    {
        var name = Path.GetFileNameWithoutExtension(path);
        return name[(name.IndexOf(Separator, StringComparison.Ordinal) + 1)..];
    }

    /// <summary>A process that was killed has left it behind.</summary>
    private static void Remove(string path)
    {
        try
        {
            File.Delete(path);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Whoever may remove it does.
        }
    }

    [LoggerMessage(9006, LogLevel.Information, "'vtunnel status' cannot ask this process: {Reason}")]
    private static partial void LogCannotBeAsked(ILogger logger, string reason);
}
