using System.Net.Security;
using System.Security.Cryptography.X509Certificates;
using VTunnel.Options;

namespace VTunnel.Carriers;

/// <summary>Whom a TLS client trusts, from options.</summary>
internal static class TlsTrust
{
    /// <summary>Reads the CA file, if one is named.</summary>
    public static SslClientAuthenticationOptions CreateClientOptions(TlsTrustOptions trust)
    {
        var options = new SslClientAuthenticationOptions();
        if (trust.Insecure)
        {
#pragma warning disable CA5359 // The user asked for it in so many words.
            options.RemoteCertificateValidationCallback = (_, _, _, _) => true;
#pragma warning restore CA5359
        }
        else if (trust.CertificateAuthorityFile is { } file)
        {
            var policy = new X509ChainPolicy
            {
                TrustMode = X509ChainTrustMode.CustomRootTrust,
                RevocationMode = X509RevocationMode.NoCheck,
            };
            policy.CustomTrustStore.ImportFromPemFile(file);
            options.CertificateChainPolicy = policy;
        }

        return options;
    }
}
