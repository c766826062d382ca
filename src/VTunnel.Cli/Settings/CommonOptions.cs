using VTunnel.Cli.Syntax;

namespace VTunnel.Cli.Settings;

/// <summary>Options that several commands have.</summary>
internal static class CommonOptions
{
    public static readonly OptionSpec Protocol = new("protocol", "v1|v2|auto", "The protocol to speak: v2 where the other side knows it (auto), or one of them only.")
    {
        Default = "auto",
        Choices = ["auto", "v1", "v2"],
        Property = nameof(Protocol),
    };

    public static readonly OptionSpec LogLevel = new("log-level", "LEVEL", "The least level that is logged: trace, debug, information, warning, error, critical or none.")
    {
        Default = "information",
        Choices = ["trace", "debug", "information", "warning", "error", "critical", "none"],
    };

    public static readonly OptionSpec LogFormat = new("log-format", "text|json", "How the log on standard error looks: a line for people, or a JSON object, per entry.")
    {
        Default = "text",
        Choices = ["text", "json"],
    };

    public static readonly OptionSpec Config = new("config", "FILE", "A file with more options, JSON or YAML by its ending; its keys are the names of the options without dashes.")
    {
        InConfigFile = false,
    };
}
