using System.Formats.Asn1;
using System.Net;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using VTunnel.Routing;

namespace VTunnel.Tls;

/// <summary>Makes authorities for the proxy's interception.</summary>
internal static class CertificateAuthority
{
    private static readonly TimeSpan Before = TimeSpan.FromHours(1);

    /// <summary>A new authority with its key.</summary>
    /// <param name="name">Its common name, which people see where they trust it.</param>
    /// <param name="constraints">The hosts that it can speak for, domains with everything below them; none for any.</param>
    /// <param name="now">The time.</param>
    /// <param name="lifetime">How long it is valid.</param>
    public static X509Certificate2 Create(string name, IReadOnlyList<HostPattern> constraints, DateTimeOffset now, TimeSpan lifetime)
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var subject = new X500DistinguishedNameBuilder();
        subject.AddCommonName(name);
        var request = new CertificateRequest(subject.Build(), key, HashAlgorithmName.SHA256);
        request.CertificateExtensions.Add(new X509BasicConstraintsExtension(true, true, 0, true));
        request.CertificateExtensions.Add(new X509KeyUsageExtension(X509KeyUsageFlags.KeyCertSign | X509KeyUsageFlags.CrlSign, true));
        request.CertificateExtensions.Add(new X509SubjectKeyIdentifierExtension(request.PublicKey, false));
        if (constraints.Count > 0)
            request.CertificateExtensions.Add(NameConstraints(constraints));
        return request.CreateSelfSigned(now - Before, now + lifetime);
    }

    /// <summary>
    /// RFC 5280, section 4.2.1.10. Constraints count for each type of name apart: where none of a type is permitted all of it must be
    /// excluded, or any would be allowed. The two families of addresses are one type, but not every program takes them as such.
    /// </summary>
    private static X509Extension NameConstraints(IReadOnlyList<HostPattern> constraints)
    {
        var addresses = constraints.Select(each => HostName.AddressOf(each.Name)).OfType<IPAddress>().ToList();
        var names = constraints.Where(each => HostName.AddressOf(each.Name) is null).Select(each => each.Name).ToList();
        var families = new[] { IPAddress.Any, IPAddress.IPv6Any }.Where(any => addresses.All(each => each.AddressFamily != any.AddressFamily)).ToList();
        var writer = new AsnWriter(AsnEncodingRules.DER);
        using (writer.PushSequence())
        {
            using (writer.PushSequence(new Asn1Tag(TagClass.ContextSpecific, 0)))
            {
                foreach (var name in names)
                    WriteName(writer, name);
                foreach (var address in addresses)
                    WriteAddress(writer, address, 0xff);
            }

            if (names.Count == 0 || families.Count > 0)
            {
                using (writer.PushSequence(new Asn1Tag(TagClass.ContextSpecific, 1)))
                {
                    if (names.Count == 0)
                        WriteName(writer, "");
                    foreach (var family in families)
                        WriteAddress(writer, family, 0);
                }
            }
        }

        return new X509Extension("2.5.29.30", writer.Encode(), critical: true);
    }

    /// <summary>A domain with everything below it; everything at all if it is empty.</summary>
    private static void WriteName(AsnWriter writer, string name)
    {
        using (writer.PushSequence())
            writer.WriteCharacterString(UniversalTagNumber.IA5String, name, new Asn1Tag(TagClass.ContextSpecific, 2));
    }

    private static void WriteAddress(AsnWriter writer, IPAddress address, byte mask)
    {
        var length = address.AddressFamily == AddressFamily.InterNetwork ? 4 : 16;
        var bytes = new byte[2 * length];
        address.GetAddressBytes().CopyTo(bytes, 0);
        bytes.AsSpan(length).Fill(mask);
        using (writer.PushSequence())
            writer.WriteOctetString(bytes, new Asn1Tag(TagClass.ContextSpecific, 7));
    }
}
