using VTunnel.Options;

namespace VTunnel.Cli.Settings;

/// <summary>Why a file cannot be read, in a few words.</summary>
internal static class FileProblems
{
    /// <summary>The system answers the same for a folder as for a file of somebody else.</summary>
    public static string Of(string path, Exception error) => error switch
    {
        UnauthorizedAccessException when Directory.Exists(path) => "this is a folder; a file is needed",
        UnauthorizedAccessException => "the file cannot be read: permission denied",
        _ => OptionRules.FileProblem(error),
    };
}
