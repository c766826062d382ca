using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using VTunnel.Cli.Settings;
using VTunnel.Options;

namespace VTunnel.Cli.Hosting;

/// <summary>The certificate of the server and what lies between it and its root.</summary>
internal sealed record ServerCertificate(X509Certificate2 Certificate, X509Certificate2Collection Chain)
{
    /// <summary>Reads a certificate and its key from PEM files.</summary>
    /// <returns>The certificate, or which of the two files is wrong and why.</returns>
    public static (ServerCertificate? Certificate, string? CertificateProblem, string? KeyProblem) Load(string certificateFile, string keyFile)
    {
        if (OptionRules.CertificateFileProblem(certificateFile) is { } problem)
            return (null, problem, null);

        string key;
        try
        {
            key = File.ReadAllText(keyFile);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or ArgumentException)
        {
            return (null, null, OptionRules.FileProblem(keyFile, e));
        }

        if (!key.Contains("PRIVATE KEY-----", StringComparison.Ordinal))
            return (null, null, "no private key in this file; it must be PEM, with '-----BEGIN PRIVATE KEY-----'");
        if (key.Contains("ENCRYPTED", StringComparison.Ordinal))
            return (null, null, "the key is encrypted; write it without a password: openssl pkey -in KEY -out NEW-KEY");

        try
        {
            var certificate = X509Certificate2.CreateFromPem(File.ReadAllText(certificateFile), key);
            var chain = new X509Certificate2Collection();
            chain.ImportFromPemFile(certificateFile);
            chain[0].Dispose();
            chain.RemoveAt(0);
            return (new ServerCertificate(certificate, chain), null, null);
        }
        catch (Exception e) when (e is CryptographicException or ArgumentException)
        {
            return (null, null, $"this is not the key of the certificate in {certificateFile}");
        }
    }
}
