using System.Diagnostics.CodeAnalysis;
using System.Security.Cryptography.X509Certificates;
using VTunnel.Cli.Hosting;
using VTunnel.Cli.Settings;
using VTunnel.Cli.Syntax;
using VTunnel.Options;
using VTunnel.Routing;
using VTunnel.Tls;

namespace VTunnel.Cli.Commands;

/// <summary><c>vtunnel ca</c>.</summary>
internal static class CaCommand
{
    private const int DefaultDays = 365;
    private const int MaxDays = 3650;

    private static readonly OptionSpec Out = new("out", "FILE", "Where to write the authority with its key, for --proxy-mitm-ca; readable by its owner only. Its certificate alone goes beside it, with the ending .crt.") { Default = "vtunnel-ca.pem", CommandLineOnly = true };
    private static readonly OptionSpec Name = new("name", "NAME", "What the authority is called where people trust it.") { Default = "vtunnel authority", CommandLineOnly = true };
    private static readonly OptionSpec Constraint = new("constraint", "DOMAIN", "A domain that the authority can speak for, with all below it, or an address; no other then. Recommended: a stolen key is worth less.") { Repeatable = true, CommandLineOnly = true };
    private static readonly OptionSpec Days = new("days", "N", "How long it is valid, 1 to 3650.") { Default = "365", CommandLineOnly = true };

    private static readonly CommandSpec Create = new("create", "Make an authority for the proxy's interception of TLS.")
    {
        Details = "Whoever trusts the authority trusts whoever has its key, for every domain that it is not constrained from. Trust it inside containers only.",
        Options = [Out, Name, Constraint, Days],
        Examples =
        [
            new("For two domains:", "vtunnel ca create --constraint corp.example.com --constraint api.example.com --out ca.pem"),
        ],
        Run = static settings => Task.FromResult(Run(settings)),
    };

    public static readonly CommandSpec Spec = new("ca", "Make an authority for the proxy's interception of TLS.")
    {
        Commands = [Create],
        Examples = [new("For one domain:", "vtunnel ca create --constraint api.example.com --out ca.pem")],
    };

    private static int Run(SettingsReader settings)
    {
        var file = settings.Text(Out) ?? Out.Default!;
        var certificateFile = Path.ChangeExtension(file, ".crt");
        var name = settings.One<string>(Name, ParseName, Name.Default!);
        var constraints = settings.Many<HostPattern>(Constraint, ParseConstraint);
        var days = settings.One(Days, ValueParsers.Count, DefaultDays);
        if (days is < 1 or > MaxDays)
            settings.Fault(Days, $"{days}", $"must be from 1 to {MaxDays}");
        if (certificateFile == file)
            settings.Fault(Out, file, "the certificate alone goes to the file with the ending .crt; give the authority another ending, such as vtunnel-ca.pem");
        foreach (var existing in new[] { file, certificateFile }.Where(File.Exists))
            settings.Fault(Out, existing, "this file exists; nothing is overwritten here: move it away, or write elsewhere");
        if (settings.Faults.Count > 0)
            return Terminal.Refuse(settings.Faults);

        using var authority = CertificateAuthority.Create(name, constraints, TimeProvider.System.GetUtcNow(), TimeSpan.FromDays(days));
        try
        {
            Write(file, authority.ExportCertificatePem() + "\n" + authority.GetECDsaPrivateKey()!.ExportPkcs8PrivateKeyPem() + "\n", UnixFileMode.UserRead | UnixFileMode.UserWrite);
            Write(certificateFile, authority.ExportCertificatePem() + "\n", UnixFileMode.UserRead | UnixFileMode.UserWrite | UnixFileMode.GroupRead | UnixFileMode.OtherRead);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
        {
            settings.Fault(Out, file, e is UnauthorizedAccessException ? "permission denied" : $"cannot be written: {e.Message}");
            Terminal.Refuse(settings.Faults);
            return ExitCodes.StateUnusable;
        }

        Console.Out.WriteLine($"""
            {OneLine.Of(file)}: the authority with its key; only the server needs it: vtunnel server --proxy 9090 --proxy-mitm-ca {OneLine.Of(file)}
            {OneLine.Of(certificateFile)}: its certificate, valid until {authority.NotAfter.ToUniversalTime():yyyy-MM-dd}, for those who are to trust it:
              Debian, Ubuntu:  cp {OneLine.Of(certificateFile)} /usr/local/share/ca-certificates/vtunnel.crt && update-ca-certificates
              Fedora, RHEL:    cp {OneLine.Of(certificateFile)} /etc/pki/ca-trust/source/anchors/vtunnel.crt && update-ca-trust
              Alpine:          cat {OneLine.Of(certificateFile)} >> /etc/ssl/certs/ca-certificates.crt
              Node.js:         NODE_EXTRA_CA_CERTS={OneLine.Of(certificateFile)}
              Python, pip:     REQUESTS_CA_BUNDLE or PIP_CERT={OneLine.Of(certificateFile)}
              git:             git config --global http.sslCAInfo {OneLine.Of(certificateFile)}
              curl:            curl --cacert {OneLine.Of(certificateFile)}
            """);
        return ExitCodes.Success;
    }

    private static void Write(string path, string text, UnixFileMode mode)
    {
        var options = new FileStreamOptions { Mode = FileMode.CreateNew, Access = FileAccess.Write };
        if (!OperatingSystem.IsWindows())
            options.UnixCreateMode = mode;
        using var writer = new StreamWriter(path, options);
        writer.Write(text);
    }

    private static bool ParseName(string text, [NotNullWhen(true)] out string? value, [NotNullWhen(false)] out string? problem)
    {
        value = text.Trim();
        problem = value.Length is > 0 and <= 64 && !value.Any(char.IsControl) ? null : "a name is 1 to 64 visible characters, such as 'vtunnel authority'";
        return problem is null;
    }

    private static bool ParseConstraint(string text, [NotNullWhen(true)] out HostPattern? value, [NotNullWhen(false)] out string? problem)
    {
        if (HostPattern.TryParse(text.StartsWith("*.", StringComparison.Ordinal) ? text[2..] : text, out value, out problem)
            && value is { Kind: HostPatternKind.Exact, Port: null })
            return true;
        problem ??= "a constraint is a domain, which includes all below it, or an address; without a port";
        return false;
    }
}
