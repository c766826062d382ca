using System.Configuration.Internal;

namespace VTunnel.Cli.Hosting;

/// <summary>
/// The configuration system of .NET Framework, with nothing in it. Akka asks it for a section before it takes the
/// configuration that it was given, and to answer that there is none it would load XML and look for <c>vtunnel.dll.config</c>.
/// </summary>
internal sealed class NoConfigurationFile : IInternalConfigSystem
{
    private NoConfigurationFile()
    {
    }

    public bool SupportsUserConfig => false;

    /// <summary>
    /// Takes its place in the process. Where that fails, .NET Framework's own does the work, which costs time and memory, and
    /// which a program of machine code does not have: it finds its parts by name.
    /// </summary>
    public static void Install()
    {
        var maker = Type.GetType("System.Configuration.Internal.InternalConfigSettingsFactory, System.Configuration.ConfigurationManager");
        if (maker is null || Activator.CreateInstance(maker, nonPublic: true) is not IInternalConfigSettingsFactory settings)
            return;
        try
        {
            settings.SetConfigurationSystem(new NoConfigurationFile(), initComplete: true);
        }
        catch (InvalidOperationException)
        {
            // Somebody has asked already.
        }
    }

    public object GetSection(string configKey) => null!;

    public void RefreshConfig(string sectionName)
    {
        // There is nothing to read again.
    }
}
