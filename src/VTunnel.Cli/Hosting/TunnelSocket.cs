using System.Diagnostics;
using System.Globalization;
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

/// <summary>The <see cref="ControlSocket"/> of a server or client: one per process, since a machine may run as many as it likes.</summary>
internal static partial class TunnelSocket
{
    public const string Server = "server";
    public const string Client = "client";

    /// <summary>In no name of a context.</summary>
    private const char Separator = '~';

    public static readonly OptionSpec StateDir = new("state-dir", "DIR", "Where 'vtunnel status' finds this process, by a socket in its folder run; XDG_STATE_HOME moves the default.") { Default = "~/.local/state/vtunnel" };

    /// <summary>Reads the option; null where nothing says where to be found.</summary>
    public static string? ReadFolder(SettingsReader settings)
    {
        if (settings.OneOrNull<string>(StateDir, ValueParsers.Folder) is { } folder)
            return folder;
        try
        {
            return StateDirectory.DefaultPath(Environment.GetEnvironmentVariable);
        }
        catch (BridgeException)
        {
            return null;
        }
    }

    /// <summary>Starts to answer. A process that cannot be asked does its work all the same, and says why in the log.</summary>
    public static async Task<ControlSocket?> StartAsync(string? folder, string role, Func<Task<object?>> status, ILogger logger)
    {
        if (folder is null)
        {
            LogCannotBeAsked(logger, "there is no home folder; give --state-dir DIR");
            return null;
        }

        try
        {
            var path = new StateDirectory(folder).SocketPath($"{role}{Separator}{Environment.ProcessId}");
            var socket = await ControlSocket.StartAsync(path, async (question, _) => question == "status" ? await status() : null);
            if (socket is null)
                LogCannotBeAsked(logger, $"{path} is too long for a socket; give a shorter --state-dir");
            return socket;
        }
        catch (BridgeException e)
        {
            LogCannotBeAsked(logger, e.Message);
            return null;
        }
    }

    /// <summary>The answers of all processes of a role, in the order of their numbers.</summary>
    public static async Task<IReadOnlyList<T>> AskAllAsync<T>(StateDirectory state, string role)
        where T : class
    {
        var folder = Path.GetDirectoryName(state.SocketPath(role))!;
        if (!Directory.Exists(folder))
            return [];
        var answers = new List<T>();
        foreach (var (process, path) in Directory.GetFiles(folder, $"{role}{Separator}*.sock").Select(path => (ProcessOf(path), path)).Order())
        {
            if (await ControlSocket.AskAsync<T>(path, "status") is { } answer)
                answers.Add(answer);
            else if (!Exists(process))
                Remove(path);
        }

        return answers;
    }

    private static int ProcessOf(string path)
    {
        var name = Path.GetFileNameWithoutExtension(path);
        return int.TryParse(name[(name.IndexOf(Separator, StringComparison.Ordinal) + 1)..], NumberStyles.None, CultureInfo.InvariantCulture, out var process) ? process : 0;
    }

    private static bool Exists(int id)
    {
        try
        {
            using var process = Process.GetProcessById(id);
            return true;
        }
        catch (ArgumentException)
        {
            return false;
        }
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
