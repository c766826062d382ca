using System.Net.Security;
using System.Security.Cryptography;
using Microsoft.Extensions.Logging;

namespace VTunnel.Cli.Hosting;

/// <summary>A certificate from files that are read again when they have changed, at most once a second; one that cannot be used changes nothing.</summary>
internal sealed partial class ReloadedCertificate
{
    private static readonly TimeSpan CheckInterval = TimeSpan.FromSeconds(1);

    private readonly string _certificateFile;
    private readonly string _keyFile;
    private readonly Lock _gate = new();
    private SslStreamCertificateContext _current;
    private string _stamp;
    private long _checked;

    public ReloadedCertificate(string certificateFile, string keyFile, ServerCertificate first)
    {
        (_certificateFile, _keyFile) = (certificateFile, keyFile);
        _current = From(first);
        _stamp = Stamp();
        _checked = TimeProvider.System.GetTimestamp();
    }

    /// <summary>Where to tell of reloads; set before the first connection.</summary>
    public ILogger? Logger { get; set; }

    /// <summary>What the next handshake uses.</summary>
    public SslStreamCertificateContext Current
    {
        get
        {
            lock (_gate)
            {
                if (TimeProvider.System.GetElapsedTime(_checked) < CheckInterval)
                    return _current;
                _checked = TimeProvider.System.GetTimestamp();
                var stamp = Stamp();
                if (stamp == _stamp)
                    return _current;
                _stamp = stamp;
                Reload();
                return _current;
            }
        }
    }

    private void Reload()
    {
        ServerCertificate? certificate = null;
        string? certificateProblem = null, keyProblem = null;
        try
        {
            (certificate, certificateProblem, keyProblem) = ServerCertificate.Load(_certificateFile, _keyFile);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            certificateProblem = e.Message;
        }

        if (certificate is not null)
            _current = From(certificate);
        if (Logger is null)
            return;
        if (certificate is null)
            LogNotReloaded(Logger, certificateProblem ?? keyProblem ?? "it cannot be read");
        else
            LogReloaded(Logger, certificate.Certificate.NotAfter);
    }

    private static SslStreamCertificateContext From(ServerCertificate certificate) =>
        SslStreamCertificateContext.Create(certificate.Certificate, certificate.Chain, offline: true);

    /// <summary>By content: times of files are copied along with them, and are too coarse for two changes in a row.</summary>
    private string Stamp() => $"{Hash(_certificateFile)} {Hash(_keyFile)}";

    private static string Hash(string file)
    {
        try
        {
            return Convert.ToHexString(SHA256.HashData(File.ReadAllBytes(file)));
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Gone, or being written: looked at again soon.
            return "";
        }
    }

    [LoggerMessage(9301, LogLevel.Information, "The certificate was read again; it is valid until {Until}")]
    private static partial void LogReloaded(ILogger logger, DateTime until);

    [LoggerMessage(9302, LogLevel.Warning, "The certificate files have changed and cannot be used, so the former certificate stays: {Reason}")]
    private static partial void LogNotReloaded(ILogger logger, string reason);
}
