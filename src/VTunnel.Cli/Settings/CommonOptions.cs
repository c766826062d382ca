using VTunnel.Cli.Syntax;
using VTunnel.Options;

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

    public static readonly OptionSpec DrainTimeout = new("drain-timeout", "DURATION", "How long open connections may take to finish after Ctrl-C, SIGTERM or SIGHUP.")
    {
        Default = "5s",
        Property = nameof(TunnelServerOptions.DrainTimeout),
    };

    public static readonly OptionSpec MaxMessageBytes = new("max-message-bytes", "N", "The largest message of protocol v1, 65536 to 67108864.")
    {
        Default = "1048576",
        Property = nameof(TunnelServerOptions.MaxMessageBytes),
    };

    public static readonly OptionSpec StreamBufferBytes = new("stream-buffer-bytes", "N", "What a connection over protocol v1 may hold for a slow reader before its session is read no further, 65536 to 1073741824.")
    {
        Default = "1048576",
        Property = nameof(TunnelServerOptions.StreamBufferBytes),
    };

    public static readonly OptionSpec ResumeWindow = new("resume-window", "DURATION", "How long a session over protocol v2 outlives the loss of its connection; the shorter of both sides' counts, and 0 ends it at once.")
    {
        Default = "30s",
        Property = nameof(TunnelServerOptions.ResumeWindow),
    };

    public static readonly OptionSpec MaxStreamWindowBytes = new("max-stream-window-bytes", "N", "What may be under way on a connection over protocol v2, 262144 to 1073741824: windows grow to it as the path needs.")
    {
        Default = "16777216",
        Property = nameof(TunnelServerOptions.MaxStreamWindowBytes),
    };

    public static readonly OptionSpec MaxSessionWindowBytes = new("max-session-window-bytes", "N", "The same for a whole session over protocol v2, and what it may hold for a connection that was lost, 1048576 to 1073741824.")
    {
        Default = "67108864",
        Property = nameof(TunnelServerOptions.MaxSessionWindowBytes),
    };

    public static readonly OptionSpec LogLevel = new("log-level", "LEVEL", "The least level that is logged: trace, debug, information (or info), warning (or warn), error, critical or none.")
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
