using VTunnel.Bridge;
using VTunnel.Bridge.Identity;
using VTunnel.Bridge.State;
using VTunnel.Bridge.Wire;
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
    private static readonly OptionSpec NewContext = BridgeCli.Context with { Description = "The name of the new identity on this machine.", Default = "the relay's host name", CommandLineOnly = true };
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

        var name = settings.Text(Name) ?? Environment.MachineName;
        var authorityFile = settings.Text(Authority);
        if (authorityFile is not null && OptionRules.CertificateFileProblem(authorityFile) is { } fileProblem)
            settings.Fault(Authority, authorityFile, fileProblem);
        var context = settings.OneOrNull<string>(NewContext, BridgeCli.NameValue);
        return BridgeCli.RunAsync(settings, async () =>
        {
            var state = BridgeCli.State(settings);
            if (context is not null && state.HasContext(context))
                throw new BridgeException(BridgeError.Invalid, $"there is a context '{context}' already; choose another name");
            context ??= state.FreeName(url!.Host);

            // Whatever could go wrong here must not use up the code.
            StateFolder.RequireWritable(state.Path);
            using var identity = PublisherIdentity.Create();
            using var dialer = new RelayDialer(
                new RelayAddress(url!, "", authorityFile), identity.Fingerprint, identity.Certificate, TimeSpan.FromSeconds(15), TimeProvider.System);
            var relayId = await dialer.EnrolAsync(settings.Arguments[1], name, CancellationToken.None);
            state.CreatePublisher(
                context,
                new BridgeContext(
                    1, ContextKind.Publisher, url!, relayId, identity.Fingerprint, name, authorityFile is null ? null : await File.ReadAllTextAsync(authorityFile)),
                identity);
            var named = state.IsDefault(ContextKind.Publisher, context) ? "" : $" --context {context}";
            return BridgeCli.Tell(
                settings,
                identity.Fingerprint,
                [
                    $"This machine is enrolled at {url} as '{OneLine.Of(name)}'.",
                    $"Its fingerprint is {identity.Fingerprint}; users' bundles carry it.",
                    .. named.Length == 0 ? (string[])[] : [StaysCurrent(settings, state, context)],
                    $"Next, add a user:     {BridgeCli.Command(settings, $"create user alice -m 5432:5432{named}")}",
                    $"Then publish:         {BridgeCli.Command(settings, $"serve{named}")}",
                ]);
        });
    }

    /// <summary>Commands without a name go on acting on another publisher.</summary>
    private static string StaysCurrent(SettingsReader settings, StateDirectory state, string context) =>
        $"The current context is '{state.CurrentContext}' as before: name this one with --context {context}, or choose it with '{BridgeCli.Command(settings, $"config use-context {context}")}'.";
}
