using VTunnel.Bridge;
using VTunnel.Bridge.State;
using VTunnel.Cli.Hosting;
using VTunnel.Cli.Settings;
using VTunnel.Cli.Syntax;

namespace VTunnel.Cli.Commands.Bridge;

/// <summary><c>vtunnel config</c>: the identities on this machine.</summary>
internal static class ConfigCommand
{
    private static readonly ArgumentSpec Name = new("NAME", "the name of the context");
    private static readonly ArgumentSpec NewName = new("NEW-NAME", "its new name");
    private static readonly ArgumentSpec File = new("FILE", "a bundle that the publisher exported, or what 'vtunnel config export' wrote");
    private static readonly OptionSpec Out = new("out", "FILE", "Where to write it.") { CommandLineOnly = true, Default = "NAME-context.zip" };
    private static readonly OptionSpec[] Common = [BridgeCli.StateDir, BridgeCli.Quiet];

    public static readonly CommandSpec Spec = new("config", "Manage the identities (contexts) on this machine.")
    {
        Commands =
        [
            new("get-contexts", "List the contexts; a star marks the current one.")
            {
                Options = [BridgeCli.Json, .. Common],
                Examples = [new("", "vtunnel config get-contexts")],
                Run = RunList,
            },
            new("use-context", "Choose the context that is used where none is named.")
            {
                Arguments = [Name],
                Options = Common,
                Examples = [new("", "vtunnel config use-context alice@office")],
                Run = RunUse,
            },
            new("import", "Keep the identity of a bundle without connecting.")
            {
                Arguments = [File],
                Options = [ConnectCommand.Passphrase, BridgeCli.Context with { Description = "The name of the new context.", CommandLineOnly = true }, .. Common],
                Examples = [new("", "vtunnel config import alice-vtunnel-config.zip")],
                Run = RunImport,
            },
            new("export", "Write a context with its keys to a file, to move it to another machine.")
            {
                Arguments = [Name],
                Options = [Out, .. Common],
                Examples = [new("", "vtunnel config export alice@office")],
                Run = RunExport,
            },
            new("rename-context", "Give a context another name.")
            {
                Arguments = [Name, NewName],
                Options = Common,
                Examples = [new("", "vtunnel config rename-context alice@office office")],
                Run = RunRename,
            },
            new("delete-context", "Remove a context with its keys.")
            {
                Arguments = [Name],
                Options = Common,
                Examples = [new("", "vtunnel config delete-context office")],
                Run = RunDelete,
            },
            new("view", "Show a context, without its keys.")
            {
                Arguments = [Name with { Optional = true }],
                Options = [BridgeCli.StateDir],
                Examples = [new("", "vtunnel config view")],
                Run = RunView,
            },
        ],
        Examples = [new("", "vtunnel config get-contexts")],
    };

    private static Task<int> RunList(SettingsReader settings) => BridgeCli.Run(settings, () =>
    {
        var state = BridgeCli.State(settings);
        var current = state.CurrentContext;
        var contexts = state.ContextNames.Select(name => ListedContext.Of(name, state.Load(name), name == current)).ToList();
        return BridgeCli.PrintList(
            settings,
            contexts,
            found => found.Name,
            $"There is no context in {state.Path} yet. Next: {BridgeCli.Command(settings, "connect BUNDLE")}, or {BridgeCli.Command(settings, "join RELAY-URL CODE")}",
            ["", "NAME", "KIND", "RELAY", "PUBLISHER", "USER"],
            found =>
            [
                found.IsCurrent ? "*" : "",
                found.Name,
                found.Kind == ContextKind.Publisher ? "publisher" : "consumer",
                found.Relay.ToString(),
                $"{found.PublisherName} ({found.Publisher[..12]})",
                found.User ?? "",
            ]);
    });

    private static Task<int> RunUse(SettingsReader settings) => BridgeCli.Run(settings, () =>
    {
        BridgeCli.State(settings).UseContext(settings.Arguments[0]);
        return BridgeCli.Tell(settings, settings.Arguments[0], $"'{settings.Arguments[0]}' is the current context.");
    });

    private static Task<int> RunImport(SettingsReader settings)
    {
        var name = settings.Text(BridgeCli.Context) ?? settings.Text(Spec.Commands[2].Options[1]);
        var passphrase = settings.Text(ConnectCommand.Passphrase);
        return BridgeCli.Run(settings, () =>
        {
            var state = BridgeCli.State(settings);
            var path = settings.Arguments[0];
            if (ContextArchive.TryImport(state, path, name) is { } moved)
                return BridgeCli.Tell(settings, moved, $"'{moved}' is imported.", $"Next: {BridgeCli.Command(settings, $"config use-context {moved}")}");
            var (imported, isNew) = state.Import(ConnectCommand.ReadBundle(path), passphrase, name);
            return BridgeCli.Tell(
                settings, imported, $"'{imported}' is {(isNew ? "imported" : "brought up to date")}.", $"Next: {BridgeCli.Command(settings, $"connect --context {imported}")}");
        });
    }

    private static Task<int> RunExport(SettingsReader settings)
    {
        var chosen = settings.Text(Out);
        return BridgeCli.Run(settings, () =>
        {
            var state = BridgeCli.State(settings);
            var name = settings.Arguments[0];
            var path = chosen ?? $"{name}-context.zip";
            ContextArchive.Export(state, name, path);
            return BridgeCli.Tell(
                settings, path, $"{path} is the whole identity '{name}', keys included: hand it over in a safe way.", $"Next, on the other machine:   vtunnel config import {Path.GetFileName(path)}");
        });
    }

    private static Task<int> RunRename(SettingsReader settings) => BridgeCli.RunAsync(settings, async () =>
    {
        var state = BridgeCli.State(settings);
        await RequireStoppedAsync(state, settings.Arguments[0]);
        state.RenameContext(settings.Arguments[0], settings.Arguments[1]);
        return BridgeCli.Tell(settings, settings.Arguments[1], $"'{settings.Arguments[0]}' is called '{settings.Arguments[1]}' from now on.");
    });

    private static Task<int> RunDelete(SettingsReader settings) => BridgeCli.RunAsync(settings, async () =>
    {
        var state = BridgeCli.State(settings);
        await RequireStoppedAsync(state, settings.Arguments[0]);
        state.DeleteContext(settings.Arguments[0]);
        return BridgeCli.Tell(settings, settings.Arguments[0], $"'{settings.Arguments[0]}' is deleted with its keys.");
    });

    /// <summary>A process would go on under the former name, beside one that is started under the new one.</summary>
    private static async Task RequireStoppedAsync(StateDirectory state, string name)
    {
        if (state.HasContext(name) && await ControlSocket.CanConnectAsync(state.SocketPath(name)))
            throw new BridgeException(BridgeError.Invalid, $"'{name}' is in use by a running '{(state.Load(name).Kind == ContextKind.Publisher ? "vtunnel serve" : "vtunnel connect")}'; end that first");
    }

    private static Task<int> RunView(SettingsReader settings) => BridgeCli.Run(settings, () =>
    {
        var state = BridgeCli.State(settings);
        var name = settings.Arguments.ElementAtOrDefault(0) ?? state.CurrentContext
            ?? throw new BridgeException(BridgeError.Invalid, "no context is the current one; name one: vtunnel config view NAME");
        BridgeCli.PrintJson(state.Load(name));
        return ExitCodes.Success;
    });
}

/// <summary>An identity of this machine, as <c>config get-contexts</c> lists it.</summary>
internal sealed record ListedContext(string Name, bool IsCurrent, ContextKind Kind, Uri Relay, string Publisher, string PublisherName, string? User)
{
    public static ListedContext Of(string name, BridgeContext context, bool isCurrent) =>
        new(name, isCurrent, context.Kind, context.Relay, context.Publisher, context.PublisherName, context.User);
}
