using VTunnel.Cli.Syntax;

namespace VTunnel.Cli.Commands.Bridge;

/// <summary>The publisher's commands about users and applications, by what they do.</summary>
internal static class PublisherCommands
{
    public static readonly CommandSpec Create = new("create", "Add a user or an application.")
    {
        Commands = [UserCommands.Create, AppCommands.Create],
        Examples = [new("", "vtunnel create user alice -m 5432:5432")],
    };

    public static readonly CommandSpec List = new("list", "List users or applications.")
    {
        Commands = [UserCommands.List, AppCommands.List],
        Examples = [new("", "vtunnel list users")],
    };

    public static readonly CommandSpec Show = new("show", "Show a user.")
    {
        Commands = [UserCommands.Show],
        Examples = [new("", "vtunnel show user alice")],
    };

    public static readonly CommandSpec Edit = new("edit", "Change a user or an application; it takes effect at once.")
    {
        Commands = [UserCommands.Edit, AppCommands.Edit],
        Examples = [new("", "vtunnel edit user alice -m 6379:6379")],
    };

    public static readonly CommandSpec Delete = new("delete", "Delete a user or an application; it takes effect at once.")
    {
        Commands = [UserCommands.Delete, AppCommands.Delete],
        Examples = [new("", "vtunnel delete user alice")],
    };

    public static readonly CommandSpec Revoke = new("revoke", "Refuse a user for good, and keep it in the list.")
    {
        Commands = [UserCommands.Revoke],
        Examples = [new("", "vtunnel revoke user alice")],
    };

    public static readonly CommandSpec Export = new("export", "Write what a user needs to connect.")
    {
        Commands = [UserCommands.Export],
        Examples = [new("", "vtunnel export user alice")],
    };
}
