using System.CommandLine;
using System.CommandLine.Invocation;
using System.Reflection;
using System.Runtime.InteropServices;

namespace VTunnel.Cli.Syntax;

/// <summary>Prints which build this is.</summary>
internal sealed class VersionWriter : SynchronousCommandLineAction
{
    public override bool ClearsParseErrors => true;

    /// <summary>For example <c>vtunnel 0.1.0 (commit 0123abcd, .NET 10.0.1, linux-x64)</c>.</summary>
    public static string Text
    {
        get
        {
            var version = typeof(VersionWriter).Assembly.GetCustomAttribute<AssemblyInformationalVersionAttribute>()?.InformationalVersion ?? "";
            var parts = version.Split('+', 2);
            var commit = parts.Length > 1 ? $"commit {parts[1][..Math.Min(8, parts[1].Length)]}, " : "";
            return $"vtunnel {parts[0]} ({commit}{RuntimeInformation.FrameworkDescription}, {RuntimeInformation.RuntimeIdentifier})";
        }
    }

    public override int Invoke(ParseResult parseResult)
    {
        parseResult.InvocationConfiguration.Output.WriteLine(Text);
        return ExitCodes.Success;
    }
}
