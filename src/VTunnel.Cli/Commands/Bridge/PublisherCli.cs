using VTunnel.Bridge.State;
using VTunnel.Cli.Settings;
using VTunnel.Cli.Syntax;
using VTunnel.Protocol.Bridge;

namespace VTunnel.Cli.Commands.Bridge;

/// <summary>What the publisher's commands have in common.</summary>
internal static class PublisherCli
{
    public static readonly OptionSpec Map = new("map", "LOCAL:[HOST:]PORT", "A target that may be reached, and the local port that the user gets for it: 5432:5432 is port 5432 of this machine's loopback, 8080:10.0.0.7:80 a machine of this network.") { Letter = 'm', Repeatable = true, CommandLineOnly = true };
    public static readonly OptionSpec RemovePort = new("remove", "LOCAL", "The local port of a mapping to withdraw.") { Repeatable = true, CommandLineOnly = true };
    public static readonly OptionSpec[] Common = [BridgeCli.Context, BridgeCli.StateDir, BridgeCli.Quiet];

    /// <summary>Every target has a local port of its own.</summary>
    public static void CheckMappings(SettingsReader settings, IReadOnlyList<BridgeGrant> maps)
    {
        foreach (var twice in maps.GroupBy(grant => grant.Local).Where(group => group.Count() > 1))
            settings.Fault(Map, null, $"local port {twice.Key} is given {twice.Count()} times; give each target a local port of its own");
    }

    /// <summary>Runs a command with the publisher's state.</summary>
    public static Task<int> WithStore(SettingsReader settings, Func<PublisherStore, int> command) => BridgeCli.Run(settings, () =>
    {
        var state = BridgeCli.State(settings);
        var context = state.Resolve(ContextKind.Publisher, settings.Text(BridgeCli.Context));
        using var store = state.OpenPublisherStore(context);
        return command(store);
    });
}
