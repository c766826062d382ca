using VTunnel.Bridge;
using VTunnel.Bridge.Identity;
using VTunnel.Bridge.State;
using VTunnel.Cli.Hosting;
using VTunnel.Cli.Settings;
using VTunnel.Cli.Syntax;
using VTunnel.Options;
using VTunnel.Protocol.Bridge;

namespace VTunnel.Cli.Commands.Bridge;

/// <summary>The publisher's commands about applications.</summary>
internal static class AppCommands
{
    private static readonly ArgumentSpec AppName = new("NAME", "the name of the application, such as web");

    public static readonly CommandSpec Create = new("app", "Add an application: targets under one name, to grant together.")
    {
        Arguments = [AppName],
        Options = [PublisherCli.Map, .. PublisherCli.Common],
        Examples = [new("", "vtunnel create app web -m 8080:80")],
        Run = RunCreate,
    };

    public static readonly CommandSpec List = new("apps", "List the applications and their targets.")
    {
        Options = [BridgeCli.Json, .. PublisherCli.Common],
        Examples = [new("", "vtunnel list apps")],
        Run = RunList,
    };

    public static readonly CommandSpec Edit = new("app", "Change the targets of an application, for all who have it.")
    {
        Arguments = [AppName],
        Options = [PublisherCli.Map, PublisherCli.RemovePort, .. PublisherCli.Common],
        Examples = [new("", "vtunnel edit app web -m 8443:443 --remove 8080")],
        Run = RunEdit,
    };

    public static readonly CommandSpec Delete = new("app", "Delete an application that nobody has.")
    {
        Arguments = [AppName],
        Options = PublisherCli.Common,
        Examples = [new("", "vtunnel delete app web")],
        Run = RunDelete,
    };

    private static DateTimeOffset Now => TimeProvider.System.GetUtcNow();

    private static Task<int> RunCreate(SettingsReader settings)
    {
        var name = BridgeCli.Name(settings, 0, AppName);
        var maps = settings.Many<BridgeGrant>(PublisherCli.Map, BridgeCli.Mapping);
        PublisherCli.CheckMappings(settings, maps);
        if (maps.Count == 0 && settings.SourceOf(PublisherCli.Map) is null)
            settings.Fault(PublisherCli.Map, null, "say what belongs to the application, such as -m 8080:80");
        return PublisherCli.WithStore(settings, store =>
        {
            var app = store.CreateApp(name, maps, Now);
            return BridgeCli.Tell(
                settings,
                app.Name,
                $"Application '{app.Name}' is {BridgeCli.Grants(app.Maps)}.",
                $"Next, grant it:   {BridgeCli.Command(settings, $"create user bob --app {app.Name}")}");
        });
    }

    private static Task<int> RunList(SettingsReader settings) => PublisherCli.WithStore(settings, store =>
        BridgeCli.PrintList(
            settings,
            store.ListApps(),
            app => app.Name,
            $"There is no application yet. Next: {BridgeCli.Command(settings, "create app web -m 8080:80")}",
            ["APPLICATION", "TARGETS"],
            app => [app.Name, BridgeCli.Grants(app.Maps)]));

    private static Task<int> RunEdit(SettingsReader settings)
    {
        var name = BridgeCli.Name(settings, 0, AppName);
        var add = settings.Many<BridgeGrant>(PublisherCli.Map, BridgeCli.Mapping);
        var remove = settings.Many<int>(PublisherCli.RemovePort, BridgeCli.PortNumber);
        PublisherCli.CheckMappings(settings, add);
        if (settings.Faults.Count == 0 && add.Count == 0 && remove.Count == 0)
            settings.Fault(PublisherCli.Map, null, "nothing to change; give -m or --remove");
        return PublisherCli.WithStore(settings, store =>
        {
            var app = store.EditApp(name, add, remove, Now);
            return BridgeCli.Tell(settings, app.Name, $"Application '{app.Name}' is {BridgeCli.Grants(app.Maps)}. A running publisher applies it within a second.");
        });
    }

    private static Task<int> RunDelete(SettingsReader settings)
    {
        var name = BridgeCli.Name(settings, 0, AppName);
        return PublisherCli.WithStore(settings, store =>
        {
            store.DeleteApp(name, Now);
            return BridgeCli.Tell(settings, name, $"Application '{name}' is deleted.");
        });
    }
}
