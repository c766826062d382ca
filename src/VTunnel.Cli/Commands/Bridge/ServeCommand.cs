using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Logging;
using VTunnel.Bridge.State;
using VTunnel.Cli.Hosting;
using VTunnel.Cli.Settings;
using VTunnel.Cli.Syntax;
using VTunnel.Hosting;

namespace VTunnel.Cli.Commands.Bridge;

/// <summary><c>vtunnel serve</c>.</summary>
internal static partial class ServeCommand
{
    public static readonly CommandSpec Spec = new("serve", "Publish: let the users of this publisher reach what they are granted.")
    {
        Details = "Set up with 'vtunnel join'. Stays connected with the relay and connects again after a loss. Changes to users and grants take effect at once. "
            + "Ctrl-C and SIGTERM let open connections finish; a second Ctrl-C ends at once.",
        Options =
        [
            BridgeCli.Context, BridgeCli.StateDir, BridgeCli.ReconnectMin, BridgeCli.ReconnectMax, BridgeCli.PingInterval,
            CommonOptions.LogLevel, CommonOptions.LogFormat, CommonOptions.Config,
        ],
        Examples = [new("", "vtunnel serve")],
        Run = RunAsync,
    };

    private static async Task<int> RunAsync(SettingsReader settings)
    {
        var options = BridgeCli.SessionOptions(settings);
        var (level, format) = BridgeCli.Log(settings);
        return await BridgeCli.RunAsync(settings, async () =>
        {
            var state = BridgeCli.State(settings);
            var context = state.Resolve(ContextKind.Publisher, settings.Text(BridgeCli.Context));
            using var interrupts = new Interrupts();
            await using var log = LoggingHost.Create(level, format);
            var logger = log.Loggers.CreateLogger(typeof(ServeCommand).FullName!);
            var started = new TaskCompletionSource<BridgePublisher>(TaskCreationOptions.RunContinuationsAsynchronously);
            await using var control = await ControlSocket.StartAsync(
                state.SocketPath(context), async (question, _) => question == "status" ? await (await started.Task).GetStateAsync() : null);
            await using var publisher = BridgePublisher.Start(state, context, options, log.Loggers);
            started.SetResult(publisher);
            LogServing(logger, context);
            if (control is null)
                LogNoStatus(logger, state.Path);
            await interrupts.WaitAsync();
            return ExitCodes.Success;
        });
    }

    [LoggerMessage(9211, LogLevel.Information, "Publishing as {Context}")]
    private static partial void LogServing(ILogger logger, string context);

    [LoggerMessage(9212, LogLevel.Warning, "The path of {StateDir} is too long for a socket: 'vtunnel status' will not know of this process, and nothing keeps a second one off")]
    private static partial void LogNoStatus(ILogger logger, string stateDir);
}
