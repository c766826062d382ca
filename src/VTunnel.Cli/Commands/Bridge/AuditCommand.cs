using VTunnel.Bridge.State;
using VTunnel.Cli.Settings;
using VTunnel.Cli.Syntax;

namespace VTunnel.Cli.Commands.Bridge;

/// <summary><c>vtunnel audit</c>.</summary>
internal static class AuditCommand
{
    private static readonly OptionSpec User = new("user", "NAME", "Of this user only; at a relay, the publisher's fingerprint or the beginning of it.") { CommandLineOnly = true };
    private static readonly OptionSpec Since = new("since", "DURATION", "Not older than this: 1h, 7d.") { CommandLineOnly = true };
    private static readonly OptionSpec Limit = new("limit", "N", "How many, the newest.") { CommandLineOnly = true, Default = "1000" };

    private static readonly OptionSpec Relay = new("relay", null, "The relay's, where a publisher is set up in the same directory.") { CommandLineOnly = true };

    public static readonly CommandSpec Spec = new("audit", "Show what happened at this publisher or relay.")
    {
        Options = [User, Since, Limit, Relay, BridgeCli.Json, BridgeCli.Context, BridgeCli.StateDir],
        Examples = [new("", "vtunnel audit --user alice --since 1h")],
        Run = RunAsync,
    };

    private static Task<int> RunAsync(SettingsReader settings)
    {
        var since = settings.SourceOf(Since) is null ? (TimeSpan?)null : settings.One(Since, BridgeCli.LongDuration, TimeSpan.Zero);
        var limit = settings.One(Limit, ValueParsers.Count, 1000);
        if (limit < 1)
            settings.Fault(Limit, $"{limit}", "at least 1");
        var user = settings.Text(User);
        return BridgeCli.Run(settings, () =>
        {
            var state = BridgeCli.State(settings);
            var from = TimeProvider.System.GetUtcNow() - since;
            var isRelay = settings.Switch(Relay) || (settings.SourceOf(BridgeCli.Context) is null && state.HasRelay
                && !state.ContextNames.Any(name => state.Load(name).Kind == ContextKind.Publisher));
            IReadOnlyList<AuditRecord> records;
            if (isRelay)
            {
                using var store = RelayStore.Open(state.Path);
                records = store.ReadAudit(user, from, limit);
            }
            else
            {
                using var store = state.OpenPublisherStore(state.Resolve(ContextKind.Publisher, settings.Text(BridgeCli.Context)));
                records = store.ReadAudit(user, from, limit);
            }

            if (settings.Switch(BridgeCli.Json))
            {
                BridgeCli.PrintJson(records);
                return ExitCodes.Success;
            }

            BridgeCli.PrintTable(
                ["TIME", "WHAT", isRelay ? "PUBLISHER" : "USER", "TARGET", "DURATION", "IN", "OUT", "DETAIL"],
                records.Select(record => new[]
                {
                    BridgeCli.Time(record.Time),
                    record.Kind,
                    isRelay && record.User is { Length: > 12 } fingerprint ? fingerprint[..12] : record.User ?? "",
                    record.Target ?? "",
                    record.Duration is { } duration ? $"{duration.TotalSeconds:0.###} s" : "",
                    record.BytesIn is { } bytesIn ? BridgeCli.Bytes(bytesIn) : "",
                    record.BytesOut is { } bytesOut ? BridgeCli.Bytes(bytesOut) : "",
                    record.Detail ?? "",
                }));
            return ExitCodes.Success;
        });
    }
}
