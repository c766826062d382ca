using VTunnel.Cli.Commands.Bridge;
using VTunnel.Cli.Syntax;

namespace VTunnel.Cli.Commands;

/// <summary>All there is to say on the command line.</summary>
internal static class CommandSpecs
{
    public static readonly CommandSpec Root = new("vtunnel", "Expose services behind NAT through a server of your own.")
    {
        Commands =
        [
            ServerCommand.Spec, ClientCommand.Spec, DemoCommand.Spec, TokenCommand.Spec, CaCommand.Spec,
            RelayCommand.Spec, JoinCommand.Spec, ServeCommand.Spec, ConnectCommand.Spec, ConnectCommand.Request,
            PublisherCommands.Create, PublisherCommands.List, PublisherCommands.Show, PublisherCommands.Edit, PublisherCommands.Delete,
            PublisherCommands.Revoke, PublisherCommands.Export,
            StatusCommand.Spec, TestCommand.Spec, AuditCommand.Spec, ConfigCommand.Spec, VersionCommand.Spec,
        ],
        Examples =
        [
            new("See it work, all in one process:", "vtunnel demo"),
            new("On a machine that others can reach:", "vtunnel server --port 3001"),
            new("On the machine with the service, which then answers on port 9000 of the server:", "vtunnel client --server ws://server.example.com:3001/ --forward 9000=localhost:3000"),
        ],
    };
}
