using Microsoft.Extensions.Logging;
using VTunnel.Bridge;
using VTunnel.Bridge.Identity;
using VTunnel.Bridge.State;
using VTunnel.Cli.Hosting;
using VTunnel.Cli.Settings;
using VTunnel.Cli.Syntax;
using VTunnel.Hosting;
using VTunnel.Options;
using VTunnel.Protocol.Bridge;

namespace VTunnel.Cli.Commands.Bridge;

/// <summary><c>vtunnel connect</c> and <c>vtunnel request</c>.</summary>
internal static partial class ConnectCommand
{
    private static readonly ArgumentSpec Bundles = new("BUNDLE", "a file that the publisher exported; without one, the identity that is set up here") { Optional = true, Repeatable = true };

    private static readonly OptionSpec Map = new("map", "NEW:ORIGINAL", "Open another local port in place of one that the publisher proposes: 15432:5432.") { Letter = 'm', Repeatable = true };
    public static readonly OptionSpec Passphrase = new("passphrase", "TEXT", "The passphrase of the bundle. Other users of the machine can read a command line: use the variable.") { Secret = true, InConfigFile = false };
    private static readonly OptionSpec Name = new("name", "NAME", "Your name, as the publisher should call you. Required.") { CommandLineOnly = true };
    private static readonly OptionSpec Out = new("out", "FILE", "Where to write the request.") { CommandLineOnly = true, Default = "NAME.request" };

    public static readonly CommandSpec Spec = new("connect", "Open local ports that lead to what a publisher grants.")
    {
        Details = "The first time give the bundle, which is kept; later it is not needed. Several bundles connect with several publishers at once. "
            + "Connects again after a loss; ports stay open and visitors wait meanwhile. Ctrl-C and SIGTERM let open connections finish.",
        Arguments = [Bundles],
        Options =
        [
            Map, Passphrase, BridgeCli.Context, BridgeCli.StateDir, BridgeCli.ReconnectMin, BridgeCli.ReconnectMax, BridgeCli.PingInterval,
            CommonOptions.LogLevel, CommonOptions.LogFormat, CommonOptions.Config,
        ],
        Examples =
        [
            new("The first time:", "vtunnel connect alice-vtunnel-config.zip"),
            new("Later, with another local port:", "vtunnel connect --map 15432:5432"),
        ],
        Run = RunAsync,
    };

    public static readonly CommandSpec Request = new("request", "Make a key here and write a request for it, so that the publisher never has the key.")
    {
        Options = [Name, Out, BridgeCli.StateDir, BridgeCli.Quiet],
        Examples = [new("", "vtunnel request --name alice")],
        Run = RunRequest,
    };

    /// <summary>Reads a bundle's file.</summary>
    public static Bundle ReadBundle(string path)
    {
        if (path.Length == 0)
            throw new BridgeException(BridgeError.Invalid, "the name of the bundle's file is empty");
        try
        {
            var file = new FileInfo(path);
            if (file.Exists && file.Length > Bundle.MaxBytes)
                throw new BridgeException(BridgeError.Invalid, $"this is no bundle: it has more than {Bundle.MaxBytes} bytes");
            return Bundle.FromZip(File.ReadAllBytes(path));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new BridgeException(BridgeError.Invalid, $"{path}: {OptionRules.FileProblem(path, e)}", e);
        }
        catch (BridgeException e)
        {
            throw new BridgeException(BridgeError.Invalid, $"{path}: {e.Message}", e);
        }
    }

    private static Task<int> RunRequest(SettingsReader settings)
    {
        var name = settings.OneOrNull<string>(Name, BridgeCli.NameValue);
        if (name is null && settings.SourceOf(Name) is null)
            settings.Fault(Name, null, "say who you are, such as --name alice");
        var path = settings.Text(Out) ?? $"{name}.request";
        return BridgeCli.Run(settings, () =>
        {
            var state = BridgeCli.State(settings);
            StateFolder.WritePrivate(path, System.Text.Encoding.ASCII.GetBytes(state.CreateRequest(name!)));
            return BridgeCli.Tell(
                settings,
                path,
                $"{path} asks for access as '{name}'. It holds nothing secret; the key stays in {state.Path}.",
                $"Next, on the publisher:   vtunnel create user {name} --request {Path.GetFileName(path)} -m 5432:5432",
                $"and then:                 vtunnel export user {name}");
        });
    }

    private static async Task<int> RunAsync(SettingsReader settings)
    {
        var moves = settings.Many<KeyValuePair<int, int>>(Map, BridgeCli.PortMove);
        foreach (var twice in moves.GroupBy(move => move.Key).Where(group => group.Count() > 1))
            settings.Fault(Map, null, $"port {twice.Key} is moved {twice.Count()} times; move it once");
        foreach (var twice in moves.GroupBy(move => move.Value).Where(group => group.Count() > 1))
            settings.Fault(Map, null, $"port {twice.Key} would be opened {twice.Count()} times");
        if (settings.Arguments.Count > 0 && settings.SourceOf(BridgeCli.Context) == SettingSource.CommandLine && settings.Arguments.Count > 1)
            settings.Fault(BridgeCli.Context, null, "several bundles cannot be one identity; leave it out");
        var options = BridgeCli.SessionOptions(settings);
        var passphrase = settings.Text(Passphrase);
        var (level, format) = BridgeCli.Log(settings);
        return await BridgeCli.RunAsync(settings, async () =>
        {
            var state = BridgeCli.State(settings);
            var named = settings.Text(BridgeCli.Context);
            var contexts = settings.Arguments.Count == 0
                ? [state.Resolve(ContextKind.Consumer, named)]
                : settings.Arguments.Select(path => Import(state, path, passphrase, named)).Distinct().ToArray();
            using var interrupts = new Interrupts();
            await using var log = LoggingHost.Create(level, format);
            return await ConnectAsync(state, contexts, new Dictionary<int, int>(moves), options, log.Loggers, interrupts);
        });
    }

    private static string Import(StateDirectory state, string path, string? passphrase, string? name)
    {
        var bundle = ReadBundle(path);
        try
        {
            return state.Import(bundle, passphrase, name).Name;
        }
        catch (BridgeException e) when (e.Code == BridgeError.Invalid)
        {
            throw new BridgeException(e.Code, $"{path}: {e.Message}", e);
        }
    }

    private static async Task<int> ConnectAsync(
        StateDirectory state,
        IReadOnlyList<string> contexts,
        Dictionary<int, int> moves,
        BridgeSessionOptions options,
        ILoggerFactory loggers,
        Interrupts interrupts)
    {
        var logger = loggers.CreateLogger(typeof(ConnectCommand).FullName!);
        var consumers = new List<BridgeConsumer>();
        var controls = new List<ControlSocket>();
        try
        {
            foreach (var context in contexts)
            {
                var created = new TaskCompletionSource<BridgeConsumer>(TaskCreationOptions.RunContinuationsAsynchronously);
                var control = await ControlSocket.StartAsync(
                    state.SocketPath(context), async (question, value) => await AnswerAsync(await created.Task, question, value));
                if (control is not null)
                    controls.Add(control);
                else
                    LogNoStatus(logger, state.Path);
                var consumer = BridgeConsumer.Create(state, context, moves, options, loggers);
                created.SetResult(consumer);
                consumers.Add(consumer);
            }

            var started = await Task.WhenAll(consumers.Select(consumer => consumer.StartAsync()));
            var problems = started.SelectMany(ports => ports).Where(port => !port.IsOpen).ToList();
            if (problems.Count > 0)
            {
                foreach (var port in problems)
                    Console.Error.WriteLine($"vtunnel: {OneLine.Of(port.Problem!)}");
                return ExitCodes.CannotListen;
            }

            foreach (var context in contexts)
                LogConnecting(logger, context);
            if (contexts is [var single] && state.CurrentContext is { } current && !state.IsDefault(ContextKind.Consumer, single))
                LogOtherIsCurrent(logger, current, single);
            return await WaitAsync(consumers, interrupts.Stopping);
        }
        finally
        {
            await Task.WhenAll(consumers.Select(consumer => consumer.DisposeAsync().AsTask()));
            foreach (var control in controls)
                await control.DisposeAsync();
        }
    }

    private static async Task<object?> AnswerAsync(BridgeConsumer consumer, string question, string value) => question switch
    {
        "status" => await consumer.GetStateAsync(),
        "check" when BridgeCli.Mapping(value, out var grant, out _) => new CheckAnswer(await consumer.CheckAsync(grant)),
        _ => null,
    };

    /// <summary>Until the program is told to stop, or nobody admits it any more.</summary>
    private static async Task<int> WaitAsync(IReadOnlyList<BridgeConsumer> consumers, CancellationToken stopping)
    {
        try
        {
            var reasons = await Task.WhenAll(consumers.Select(consumer => consumer.WaitForEndAsync(stopping)));
            foreach (var reason in reasons.OfType<string>())
                Console.Error.WriteLine($"vtunnel: not admitted: {OneLine.Of(reason)}");
            return ExitCodes.AccessRefused;
        }
        catch (OperationCanceledException) when (stopping.IsCancellationRequested)
        {
            return ExitCodes.Success;
        }
    }

    [LoggerMessage(9222, LogLevel.Information, "The current context is {Current}: without a bundle, this one is 'vtunnel connect --context {Context}'")]
    private static partial void LogOtherIsCurrent(ILogger logger, string current, string context);

    [LoggerMessage(9223, LogLevel.Warning, "The path of {StateDir} is too long for a socket: 'vtunnel status' will not know of this process, and nothing keeps a second one off")]
    private static partial void LogNoStatus(ILogger logger, string stateDir);

    [LoggerMessage(9221, LogLevel.Information, "Connecting as {Context}")]
    private static partial void LogConnecting(ILogger logger, string context);
}

/// <summary>What a running consumer says of a target; null is that it was reached.</summary>
internal sealed record CheckAnswer(string? Problem);
