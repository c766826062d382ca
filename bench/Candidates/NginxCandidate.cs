using System.Globalization;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using VTunnel.Bench.Load;
using VTunnel.Bench.Processes;

namespace VTunnel.Bench.Candidates;

/// <summary>nginx as a plain proxy in front of the load target: one port for requests with whole URLs, one that ends TLS. It logs each request, as the program does.</summary>
internal sealed class NginxCandidate : Candidate
{
    private readonly string _folder = Directory.CreateTempSubdirectory("vtunnel-bench-").FullName;
    private readonly ChildProgram _nginx;

    public NginxCandidate(LoadTarget target)
        : base("nginx")
    {
        var program = ((string[])["/usr/sbin/nginx", "/usr/bin/nginx", "/usr/local/sbin/nginx"]).FirstOrDefault(File.Exists)
            ?? throw new BenchException("nginx is not installed, which the scenario proxy compares with: install it, or leave proxy out with --scenario");
        VisitorPort = FreePort();
        TlsPort = FreePort();
        WriteCertificate();
        File.WriteAllText(Path.Combine(_folder, "nginx.conf"), string.Create(CultureInfo.InvariantCulture, $$"""
            daemon off;
            worker_processes auto;
            pid {{_folder}}/nginx.pid;
            error_log stderr error;
            events { worker_connections 1024; }
            http {
              access_log {{_folder}}/access.log;
              keepalive_requests 1000000000;
              client_body_temp_path {{_folder}}/temp;
              proxy_temp_path {{_folder}}/temp;
              fastcgi_temp_path {{_folder}}/temp;
              uwsgi_temp_path {{_folder}}/temp;
              scgi_temp_path {{_folder}}/temp;
              ssl_certificate {{_folder}}/certificate.pem;
              ssl_certificate_key {{_folder}}/key.pem;
              upstream target { server 127.0.0.1:{{target.Port}}; keepalive 64; keepalive_requests 1000000000; }
              server {
                listen 127.0.0.1:{{VisitorPort}};
                listen 127.0.0.1:{{TlsPort}} ssl;
                location / {
                  proxy_pass http://target;
                  proxy_http_version 1.1;
                  proxy_set_header Host $http_host;
                  proxy_set_header Connection "";
                }
              }
            }
            """));
        _nginx = ChildProgram.Start(program, ["-p", _folder, "-e", "stderr", "-c", Path.Combine(_folder, "nginx.conf")]);
        WaitUntilListening();
    }

    /// <summary>Where visitors speak TLS.</summary>
    public int TlsPort { get; }

    public override IReadOnlyList<int> Processes => [.. ProcessUsage.Family(_nginx.Id)];

    public override void Dispose()
    {
        _nginx.Dispose();
        Directory.Delete(_folder, recursive: true);
    }

    private void WriteCertificate()
    {
        using var key = ECDsa.Create(ECCurve.NamedCurves.nistP256);
        var request = new CertificateRequest("CN=bench", key, HashAlgorithmName.SHA256);
        using var certificate = request.CreateSelfSigned(DateTimeOffset.UtcNow.AddDays(-1), DateTimeOffset.UtcNow.AddDays(1));
        File.WriteAllText(Path.Combine(_folder, "certificate.pem"), certificate.ExportCertificatePem());
        File.WriteAllText(Path.Combine(_folder, "key.pem"), key.ExportPkcs8PrivateKeyPem());
    }

    private void WaitUntilListening()
    {
        for (var tries = 0; ; tries++)
        {
            try
            {
                using var probe = LoadTarget.Connect(TlsPort);
                return;
            }
            catch (SocketException) when (tries < 2000)
            {
                Thread.Sleep(5);
            }
            catch (SocketException e)
            {
                throw new BenchException($"nginx does not listen on port {TlsPort}. It said:\n{_nginx.Output()}", e);
            }
        }
    }
}
