using VTunnel.Bridge;
using VTunnel.Bridge.Identity;
using VTunnel.Bridge.State;
using VTunnel.Bridge.Wire;
using VTunnel.Carriers;
using VTunnel.Cli.Hosting;
using VTunnel.Cli.Settings;
using VTunnel.Cli.Syntax;
using VTunnel.Options;
using VTunnel.Protocol.Bridge;

namespace VTunnel.Cli.Commands.Bridge;

/// <summary><c>vtunnel join</c>.</summary>
internal static class JoinCommand
{
    private static readonly ArgumentSpec RelayUrl = new("RELAY-URL", "where the relay is, such as wss://relay.example.com/");
    private static readonly ArgumentSpec Code = new("CODE", "what 'vtunnel relay invite' printed") { Secret = true };

    private static readonly OptionSpec Name = new("name", "NAME", "What the publisher calls itself; its users and the relay's operator see it.") { CommandLineOnly = true, Default = "the name of this machine" };
    private static readonly OptionSpec NewContext = BridgeCli.Context with { Description = "The name of the new identity on this machine; one that is a publisher at this relay enrols its key again.", Default = "the relay's host name", CommandLineOnly = true };
    private static readonly OptionSpec Authority = new("ca", "FILE", "Trust the authorities in this PEM file for the relay, instead of the system's; bundles carry it to users.");

    public static readonly CommandSpec Spec = new("join", "Enrol this machine as a publisher at a relay.")
    {
        Arguments = [RelayUrl, Code],
        Options = [Name, NewContext, Authority, BridgeCli.StateDir, BridgeCli.Quiet],
        Examples = [new("", "vtunnel join wss://relay.example.com/ abcd-efgh-jkmn-pqrs-tuvw-xyz2-3456-789a")],
        Run = RunAsync,
    };

    private static Task<int> RunAsync(SettingsReader settings)
    {
        Uri? url = null;
        if (settings.Arguments.Count > 0)
        {
            if (!ValueParsers.ServerUrl(settings.Arguments[0], out url, out var problem))
                settings.Fault(RelayUrl, settings.Arguments[0], problem);
            else if (url.Scheme is not ("ws" or "wss" or "http" or "https"))
                settings.Fault(RelayUrl, settings.Arguments[0], "a URL begins with wss:// (or ws:// for tests)");
        }

        if (settings.Arguments.Count > 1 && string.IsNullOrWhiteSpace(settings.Arguments[1]))
            settings.Fault(Code, "", "it is empty; 'vtunnel relay invite' prints one");
        var name = settings.Text(Name);
        var authorityFile = settings.Text(Authority);
        if (authorityFile is not null && OptionRules.CertificateFileProblem(authorityFile) is { } fileProblem)
            settings.Fault(Authority, authorityFile, fileProblem);
        var context = settings.OneOrNull<string>(NewContext, BridgeCli.NameValue);
        return BridgeCli.RunAsync(settings, async () =>
        {
            var state = BridgeCli.State(settings);

            // Whatever could go wrong here must not use up the code.
            StateFolder.RequireWritable(state.Path);
            return context is not null && state.HasContext(context)
                ? await JoinAgainAsync(settings, state, context, url!, name, authorityFile)
                : await JoinAsync(settings, state, context ?? state.FreeName(url!.Host), url!, name ?? Environment.MachineName, authorityFile);
        });
    }

    private static async Task<int> JoinAsync(SettingsReader settings, StateDirectory state, string context, Uri url, string name, string? authorityFile)
    {
        var code = settings.Arguments[1];
        var found = state.FindKeyWithoutContext(context);
        using var identity = found ?? state.BeginJoin(code);
        string relayId;
        try
        {
            relayId = await EnrolAsync(settings, new RelayAddress(url, "", authorityFile), identity, name);
        }
        catch (TunnelConnectException e) when (e.Code == ConnectError.Unauthorized)
        {
            state.EndJoin(code);
            throw;
        }

        state.CreatePublisher(
            context,
            new BridgeContext(
                1, ContextKind.Publisher, url, relayId, identity.Fingerprint, name, authorityFile is null ? null : await File.ReadAllTextAsync(authorityFile)),
            identity);
        state.EndJoin(code);
        var named = state.IsDefault(ContextKind.Publisher, context) ? "" : $" --context {context}";
        return BridgeCli.Tell(
            settings,
            identity.Fingerprint,
            [
                $"This machine is enrolled at {url} as '{OneLine.Of(name)}'.",
                $"Its fingerprint is {identity.Fingerprint}; users' bundles carry it.",
                .. found is null ? (string[])[] : [$"The key is the one that was in {state.Path} for context '{context}'."],
                .. named.Length == 0 ? (string[])[] : [StaysCurrent(settings, state, context)],
                $"Next, add a user:     {BridgeCli.Command(settings, $"create user alice -m 5432:5432{named}")}",
                $"Then publish:         {BridgeCli.Command(settings, $"serve{named}")}",
            ]);
    }

    /// <summary>A publisher that its relay has removed, or whose relay has lost its state, comes back with its key: bundles are made for that.</summary>
    private static async Task<int> JoinAgainAsync(SettingsReader settings, StateDirectory state, string context, Uri url, string? name, string? authorityFile)
    {
        var known = state.Load(context);
        if (known.Kind != ContextKind.Publisher || !IsSameRelay(known.Relay, url))
        {
            var whose = known.Kind == ContextKind.Publisher ? $"a publisher at {known.Relay}" : "a consumer";
            throw new BridgeException(BridgeError.Invalid, $"there is a context '{context}' already, of {whose}; choose another name");
        }

        using var identity = state.LoadPublisher(context);
        name ??= known.PublisherName;
        var relayId = await EnrolAsync(settings, state.Relay(context) is var relay && authorityFile is null ? relay : relay with { AuthorityFile = authorityFile }, identity, name);
        state.UpdatePublisher(
            context,
            known with { RelayId = relayId, PublisherName = name, RelayAuthority = authorityFile is null ? known.RelayAuthority : await File.ReadAllTextAsync(authorityFile) });
        return BridgeCli.Tell(
            settings,
            identity.Fingerprint,
            [
                $"This machine is enrolled at {url} again as '{OneLine.Of(name)}', with the key and the users of context '{context}'.",
                relayId == known.RelayId
                    ? "The bundles of its users are as good as before; 'vtunnel serve' connects by itself."
                    : "The relay was set up anew, so start 'vtunnel serve' again; each user needs a bundle made now, with the key that it has:",
                .. relayId == known.RelayId ? (string[])[] : [$"    {BridgeCli.Command(settings, $"export user NAME{(state.IsDefault(ContextKind.Publisher, context) ? "" : $" --context {context}")}")}"],
            ]);
    }

    private static async Task<string> EnrolAsync(SettingsReader settings, RelayAddress relay, PublisherIdentity identity, string name)
    {
        using var dialer = new RelayDialer(relay, identity.Fingerprint, identity.Certificate, TimeSpan.FromSeconds(15), TimeProvider.System);
        return await dialer.EnrolAsync(settings.Arguments[1], name, CancellationToken.None);
    }

    private static bool IsSameRelay(Uri one, Uri other) =>
        one.IdnHost == other.IdnHost && one.Port == other.Port && one.AbsolutePath == other.AbsolutePath && IsSecure(one) == IsSecure(other);

    private static bool IsSecure(Uri url) => url.Scheme is "wss" or "https";

    /// <summary>Commands without a name go on acting on another publisher.</summary>
    private static string StaysCurrent(SettingsReader settings, StateDirectory state, string context) =>
        $"The current context is '{state.CurrentContext}' as before: name this one with --context {context}, or choose it with '{BridgeCli.Command(settings, $"config use-context {context}")}'.";
}
