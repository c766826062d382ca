using System.Security.Cryptography;
using VTunnel.Cli;
using VTunnel.Cli.Commands;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.EndToEnd.Tests.CommandLine;

/// <summary>Whatever is wrong is said before anything starts: a line for each fault, all of them at once, exit code 2.</summary>
public sealed class BadInputTests
{
    private const string AnyServer = "client --server ws://host/ ";
    private const string AnyForward = "client --forward 9000=localhost:3000 ";
    private const string AnyClient = "client --server ws://host/ --forward 9000=localhost:3000 ";

    [Theory]
    [InlineData("", "a command is missing; write one of {commands}")]
    [InlineData("serer", "'serer': there is no such command; did you mean server?")]
    [InlineData("frobnicate", "'frobnicate': there is no such command; the commands are {commands}")]
    [InlineData("token", "a command is missing; write one of create")]
    [InlineData("server --prt 3001", "--prt: there is no such option; did you mean --port?")]
    [InlineData("server -prt=3001", "-prt: there is no such option; did you mean --port?")]
    [InlineData("server --xyzzy-plugh", "--xyzzy-plugh: there is no such option; --help lists those that there are")]
    [InlineData("server -p 3001", "-p: there is no such option; --help lists those that there are")]
    [InlineData("server 3001", "'3001': nothing is expected here; --help lists the options")]
    [InlineData("server --port 3001 3002", "'3002': nothing is expected here; --help lists the options")]
    [InlineData("server --port", "--port: a value is missing; write --port PORT")]
    [InlineData("server --port 1 --port 2", "--port: given 2 times; give it once")]
    [InlineData("server --port 65536", "--port '65536': a port is a number from 1 to 65535, or 0 for any free one")]
    [InlineData("server --port -1", "--port '-1': a port is a number from 1 to 65535, or 0 for any free one")]
    [InlineData("server --port http", "--port 'http': a port is a number from 1 to 65535, or 0 for any free one")]
    [InlineData("server --host nowhere", "--host 'nowhere': an address of this machine is needed, such as 127.0.0.1, ::1 or 0.0.0.0")]
    [InlineData("server --host 80", "--host '80': an address of this machine is needed, such as 127.0.0.1, ::1 or 0.0.0.0")]
    [InlineData("server --listen-address 10.1", "--listen-address '10.1': an address of this machine is needed, such as 127.0.0.1, ::1 or 0.0.0.0")]
    [InlineData("server --max-sessions 0", "--max-sessions '0': must be from 1 to 2147483647")]
    [InlineData("server --max-sessions many", "--max-sessions 'many': a whole number is needed, such as 1000")]
    [InlineData("server --max-listeners 70000", "--max-listeners '70000': must be from 1 to 65535")]
    [InlineData("server --max-streams -5", "--max-streams '-5': must be from 1 to 2147483647")]
    [InlineData("server --max-message-bytes 100", "--max-message-bytes '100': must be from 65536 to 67108864 bytes")]
    [InlineData("server --stream-buffer-bytes 1", "--stream-buffer-bytes '1': must be from 65536 to 1073741824 bytes")]
    [InlineData("server --max-stream-window-bytes 262143", "--max-stream-window-bytes '262143': must be from 262144 to 1073741824 bytes")]
    [InlineData("server --max-session-window-bytes 1000", "--max-session-window-bytes '1000': must be from 1048576 to 1073741824 bytes")]
    [InlineData("server --resume-window 25h", "--resume-window '25h': must be from 0s to 24h")]
    [InlineData("server --probe-timeout 0s", "--probe-timeout '0s': must be longer than 0s and at most 24h")]
    [InlineData("server --drain-timeout -1s", "--drain-timeout '-1s': must be from 0s to 24h")]
    [InlineData("server --handshake-timeout 10", "--handshake-timeout '10': a duration is a number with a unit, such as 300ms, 1.5s, 2m or 1h30m")]
    [InlineData("server --handshake-timeout 0s", "--handshake-timeout '0s': must be longer than 0s and at most 24h")]
    [InlineData("server --idle-timeout 25h", "--idle-timeout '25h': must be longer than 0s and at most 24h, or infinite (0 on the command line)")]
    [InlineData("server --protocol v3", "--protocol 'v3': write one of auto, v1, v2")]
    [InlineData("server --log-level loud", "--log-level 'loud': write one of trace, debug, information, info, warning, warn, error, critical, none")]
    [InlineData("server --log-format xml", "--log-format 'xml': write one of text, json")]
    [InlineData("server --allow-origin app.example.com", "--allow-origin 'app.example.com': an origin is SCHEME://HOST[:PORT] and nothing after it, such as https://app.example.com")]
    [InlineData("server --tokens no-such.json", "--tokens 'no-such.json': there is no such file")]
    [InlineData("server --tls-cert no-such.pem", "--tls-cert 'no-such.pem': TLS needs a certificate and its key; give --tls-key FILE, too")]
    [InlineData("server --tls-key no-such.pem", "--tls-key 'no-such.pem': TLS needs a certificate and its key; give --tls-cert FILE, too")]
    [InlineData("server --tls-cert no-such.pem --tls-key no-such.pem", "--tls-cert 'no-such.pem': there is no such file")]
    [InlineData("server --config no-such.json", "--config 'no-such.json': there is no such file")]
    [InlineData("server --config a.json --config b.json", "--config: given 2 times; give it once")]
    [InlineData(AnyServer, "--forward: nothing to forward; give at least one, such as --forward 9000=localhost:3000")]
    [InlineData(AnyForward, "--server: the URL of the server is needed, such as wss://tunnel.example.com/")]
    [InlineData(AnyForward + "--server localhost:3001", "--server 'localhost:3001': a URL begins with ws:// or wss://; write ws://localhost:3001")]
    [InlineData(AnyForward + "--server ftp://host/", "--server 'ftp://host/': 'ftp' is not a scheme of a server; use ws:// or wss://, such as wss://tunnel.example.com/")]
    [InlineData(AnyForward + "--server ws://", "--server 'ws://': not a URL; write ws://HOST[:PORT]/ or wss://HOST[:PORT]/, such as wss://tunnel.example.com/")]
    [InlineData(AnyForward + "--server ws://host:99999/", "--server 'ws://host:99999/': not a URL; write ws://HOST[:PORT]/ or wss://HOST[:PORT]/, such as wss://tunnel.example.com/")]
    [InlineData(AnyServer + "--forward 9000", "--forward '9000': a forward is PORT=HOST:PORT, such as 9000=localhost:3000")]
    [InlineData(AnyServer + "--forward 65536=localhost:3000", "--forward '65536=localhost:3000': the server's port is 65536; it must be from 1 to 65535")]
    [InlineData(AnyServer + "--forward 9000=localhost:70000", "--forward '9000=localhost:70000': the target's port is '70000'; it must be from 1 to 65535")]
    [InlineData(AnyServer + "--forward 9000=udp://localhost:53", "--forward '9000=udp://localhost:53': 'udp' is not a scheme of a target; use tcp://, tls:// or none, such as 9000=localhost:3000 or 9000=tls://www.example.com:443")]
    [InlineData(AnyServer + "--forward app*.example.com=localhost:3000", "--forward 'app*.example.com=localhost:3000': 'app*.example.com' is neither a port nor a domain: a wildcard stands for whole labels at one end of a name: *.example.test or mail.*; write PORT=HOST:PORT, such as 9000=localhost:3000 or gitlab.corp=localhost:8080")]
    [InlineData(AnyServer + "-H A:b --forward 9000=localhost:3000", "--header: a header belongs to the forward before it; there is none before this one")]
    [InlineData(AnyClient + "-H colonless", "--header: a header is 'Name: value', in quotes")]
    [InlineData(AnyClient + "-H A:b -H colonless", "--header (2 of 2): a header is 'Name: value', in quotes")]
    [InlineData(AnyClient + "-H A:b -H Host:other", "--header (2 of 2): this header belongs to the connection or the body and cannot be replaced; leave it out")]
    [InlineData(AnyClient + "-H @no-such.headers", "--header @no-such.headers: there is no such file")]
    [InlineData(AnyClient + "-H Host:other", "--header: this header belongs to the connection or the body and cannot be replaced; leave it out")]
    [InlineData(AnyClient + "--forward a.test=localhost:1 --forward A.test.=localhost:2", "--forward 'a.test=localhost:2': domain a.test already leads to localhost:1; give each domain one target")]
    [InlineData("server --proxy-open", "--proxy-open: there is no proxy that this could be for; give --proxy PORT, too")]
    [InlineData("server --proxy 0 --proxy-host 0.0.0.0", "--proxy-host '0.0.0.0': anyone who reaches this address could use the proxy; ask for a password (--proxy-auth USER:PASSWORD), or say that this is meant (--proxy-open)")]
    [InlineData("server --port 4001 --proxy 4001", "--proxy '4001': this is the port for tunnel clients, too (--port); give each a port of its own")]
    [InlineData("server --proxy 3001", "--proxy '3001': this is the port for tunnel clients, too (--port); give each a port of its own")]
    [InlineData("server --host 127.0.0.1 --proxy 3001", "--proxy '3001': this is the port for tunnel clients, too (--port); give each a port of its own")]
    [InlineData("server --proxy 0 --proxy-auth alice", "--proxy-auth: a user of the proxy is USER:PASSWORD")]
    [InlineData("server --proxy 0 --proxy-resolve a.test", "--proxy-resolve 'a.test': a name and its address are NAME=ADDR, such as registry.test=10.0.0.5")]
    [InlineData("server --proxy 0 --proxy-direct maybe", "--proxy-direct 'maybe': write one of allow, deny")]
    [InlineData("server --proxy 0 --proxy-allow a*b", "--proxy-allow 'a*b': a wildcard stands for whole labels at one end of a name: *.example.test or mail.*")]
    [InlineData("ca create --out ca.crt", "--out 'ca.crt': the certificate alone goes to the file with the ending .crt; give the authority another ending, such as vtunnel-ca.pem")]
    [InlineData("ca create --days 0", "--days '0': must be from 1 to 3650")]
    [InlineData("ca create --constraint mail.*", "--constraint 'mail.*': a constraint is a domain, which includes all below it, or an address; without a port")]
    [InlineData(AnyClient + "--forward 9000=other:80", "--forward '9000=other:80': port 9000 already leads to localhost:3000; give each port one target")]
    [InlineData(AnyClient + "--server-header colonless", "--server-header: a header is 'Name: value', in quotes")]
    [InlineData(AnyClient + "--server-header A:b --server-header colonless", "--server-header (2 of 2): a header is 'Name: value', in quotes")]
    [InlineData(AnyClient + "--server-header Upgrade:h2c --server-header A:b", "--server-header (1 of 2): the WebSocket handshake sets this header itself; leave it out")]
    [InlineData("server --token fine --token a,b", "--token (2 of 2): a token consists of letters, digits and -._~+/= only")]
    [InlineData(AnyClient + "--server-header Upgrade:h2c", "--server-header: the WebSocket handshake sets this header itself; leave it out")]
    [InlineData(AnyClient + "--ping-interval 30", "--ping-interval '30': a duration is a number with a unit, such as 300ms, 1.5s, 2m or 1h30m")]
    [InlineData(AnyClient + "--reconnect-min 10s", "--reconnect-min '10s': must be at most --reconnect-max, which is 5s")]
    [InlineData(AnyClient + "--reconnect-max 0s", "--reconnect-max '0s': must be longer than 0s and at most 24h")]
    [InlineData(AnyClient + "--no-reconnect=perhaps", "--no-reconnect 'perhaps': a switch is true or false")]
    [InlineData(AnyServer + "--no-reconnect --forwrd 9000=localhost:1 --forward 1=a:1", "--forwrd: there is no such option; did you mean --forward?")]
    [InlineData(AnyClient + "--no-reconnect --insecur", "--insecur: there is no such option; did you mean --insecure?")]
    [InlineData(AnyClient + "--insecure perhaps", "--insecure 'perhaps': a switch is true or false")]
    [InlineData(AnyClient + "--ca no-such.pem", "--ca 'no-such.pem': there is no such file")]
    [InlineData(AnyClient + "--target-ca no-such.pem", "--target-ca 'no-such.pem': there is no such file")]
    [InlineData(AnyClient + "--token-file no-such.token", "--token-file 'no-such.token': there is no such file")]
    [InlineData(AnyClient + "--token a --token-file b", "--token-file: the token is given as --token, too; give one of the two")]
    [InlineData("token create", "--name: say whose token it is, such as --name alice")]
    [InlineData("token create --name=", "--name: a value is missing; write --name NAME")]
    [InlineData("token create --name a --ports 1-", "--ports '1-': ports are numbers from 1 to 65535 or ranges of them, such as 9000,9100-9199")]
    [InlineData("token create --name a --ports 9-8", "--ports '9-8': the range 9-8 runs backwards; write 8-9")]
    [InlineData("token create --name a --tokens no-such/t.json", "--tokens 'no-such/t.json': the file cannot be written: there is no such folder")]
    [InlineData("version x", "'x': nothing is expected here; --help lists the options")]
    [InlineData("version --short", "--short: there is no such option; --help lists those that there are")]
    [InlineData("demo --twice", "--twice: there is no such option; --help lists those that there are")]
    public async Task A_fault_is_told_in_one_line(string arguments, string expected)
    {
        using var folder = new TempDirectory();
        var result = await VTunnelProgram.RunAsync(arguments.Split(' ', StringSplitOptions.RemoveEmptyEntries), folder: folder.Path);
        var commands = string.Join(", ", CommandSpecs.Root.Commands.Select(command => command.Name));
        Assert.Equal([$"vtunnel: {expected.Replace("{commands}", commands, StringComparison.Ordinal)}"], result.Errors);
        Assert.Equal(ExitCodes.Usage, result.ExitCode);
        Assert.Empty(result.Output);
    }

    [Fact]
    public async Task All_faults_of_all_sources_are_told_at_once_and_name_their_source()
    {
        using var folder = new TempDirectory();
        folder.Write("server.yaml", "max-streams: 0\nprt: 5\nforward: 1=a:1\nhost: [a, b]\n");

        var result = await VTunnelProgram.RunAsync(
            ["server", "--port", "x", "--bogus", "--config", "server.yaml"],
            new Dictionary<string, string?> { ["VTUNNEL_MAX_SESSIONS"] = "none", ["VTUNNEL_ALLOW_ORIGIN"] = "https://ok.example,bad,worse" },
            folder.Path);

        Assert.Equal(
            [
                "vtunnel: --bogus: there is no such option; --help lists those that there are",
                "vtunnel: forward in server.yaml: this is an option of 'vtunnel client', not of 'vtunnel server'",
                "vtunnel: host in server.yaml: write one value; it is missing, or a list or an object",
                "vtunnel: prt in server.yaml: there is no such option; did you mean port?",
                "vtunnel: --port 'x': a port is a number from 1 to 65535, or 0 for any free one",
                "vtunnel: VTUNNEL_ALLOW_ORIGIN 'bad': an origin is SCHEME://HOST[:PORT] and nothing after it, such as https://app.example.com",
                "vtunnel: VTUNNEL_ALLOW_ORIGIN 'worse': an origin is SCHEME://HOST[:PORT] and nothing after it, such as https://app.example.com",
                "vtunnel: VTUNNEL_MAX_SESSIONS 'none': a whole number is needed, such as 1000",
                "vtunnel: max-streams in server.yaml '0': must be from 1 to 2147483647",
            ],
            result.Errors);
        Assert.Equal(ExitCodes.Usage, result.ExitCode);
    }

    [Theory]
    [InlineData("client --server ws://host/ --forward 1=a:1 --tokne hunter2")]
    [InlineData("client --server ws://host/ --forward 1=a:1 --tokne=hunter2")]
    [InlineData("client --server ws://host/ --forward 1=a:1 --no-reconnect --tokne hunter2")]
    [InlineData("client --server ws://host/ --forward 1=a:1 --no-reconnect --tokne=hunter2")]
    [InlineData("client --server ws://host/ --forward 1=a:1 --token first hunter2 hunter2")]
    [InlineData("client --server ws://host/ --forward 1=a:1 --server-header Authorization: Bearer hunter2")]
    [InlineData("client --server ws://host/ --forward 1=a:1 --server-header hunter2")]
    [InlineData("client --server ws://host/ --forward 1=a:1 --token hunter2\u00e4")]
    [InlineData("client --server ws://host/ --forward 1=a:1 --token a --token hunter2")]
    [InlineData("client --server ws://user:hunter2@host/ --forward 1=a:1")]
    [InlineData("client --server ws://host/?hunter2#x --forward 1=a:1")]
    [InlineData("client --server wss://user:hunter2@host:99999/ --forward 1=a:1")]
    [InlineData("client --server user:hunter2@host --forward 1=a:1")]
    [InlineData("client --server ws://host/ --forward 1=user:hunter2@host:80")]
    [InlineData("client --server ws://host/ --forward 1=user:hunter2@host:80/path")]
    [InlineData("server --token hunter2! --port x")]
    [InlineData("server --token ok more hunter2 --port x")]
    public async Task A_secret_is_never_repeated(string arguments)
    {
        var result = await VTunnelProgram.RunAsync(arguments.Split(' '));
        Assert.Equal(ExitCodes.Usage, result.ExitCode);
        Assert.NotEmpty(result.Errors);
        Assert.DoesNotContain("hunter2", string.Join('\n', result.Errors) + result.Output, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("server --port 0", "token: []\n", "token in c.yaml: no token is given; leave the option out if anyone may open tunnels")]
    [InlineData("server --port 0", "token: ''\n", "token in c.yaml: no token is given; leave the option out if anyone may open tunnels")]
    [InlineData("server --port 0 --proxy 0", "proxy-auth: []\n", "proxy-auth in c.yaml: no user is given; leave the option out if nobody is to be asked")]
    [InlineData("client --server ws://host/", "forward: []\n", "forward in c.yaml: nothing to forward; give at least one, such as --forward 9000=localhost:3000")]
    public async Task A_list_that_protects_or_is_needed_must_not_be_empty(string arguments, string text, string expected)
    {
        using var folder = new TempDirectory();
        folder.Write("c.yaml", text);
        var result = await VTunnelProgram.RunAsync([.. arguments.Split(' '), "--config", "c.yaml"], folder: folder.Path);
        Assert.Equal([$"vtunnel: {expected}"], result.Errors);
        Assert.Equal(ExitCodes.Usage, result.ExitCode);
    }

    [Fact]
    public async Task A_variable_with_nothing_but_commas_is_no_token()
    {
        var result = await VTunnelProgram.RunAsync(["server", "--port", "0"], new Dictionary<string, string?> { ["VTUNNEL_TOKEN"] = "," });
        Assert.Equal(["vtunnel: VTUNNEL_TOKEN: no token is given; leave the option out if anyone may open tunnels"], result.Errors);
    }

    [Fact]
    public async Task A_value_cannot_forge_lines()
    {
        var result = await VTunnelProgram.RunAsync(["server", "--port", "1\nvtunnel: all is well \u001b[2J"]);
        Assert.Equal(["vtunnel: --port '1\\nvtunnel: all is well \\u001b[2J': a port is a number from 1 to 65535, or 0 for any free one"], result.Errors);
    }

    [Theory]
    [InlineData("c.json", "{ \"port\": 1,, }", "not valid JSON (line 1)")]
    [InlineData("c.json", "{ \"port\": 1, \"port\": 2 }", "A duplicate key 'port' was found.")]
    [InlineData("c.json", "[]", "Top-level JSON element must be an object. Instead, 'Array' was found.")]
    [InlineData("c.yaml", "port: 1\nport: 2\n", "not valid YAML (line 2): Duplicate key port")]
    [InlineData("c.yml", "- port\n", "not valid YAML (line 1): no keys; write one 'option: value' per line")]
    [InlineData("c.yml", "a: 1\n---\nb: 2\n", "not valid YAML (line 3): a second document; write only one")]
    [InlineData("c.yaml", "allow-origin: &a [ *a ]\n", "not valid YAML (line 1): an alias that contains itself")]
    [InlineData("c.toml", "port = 1\n", "the ending of the file must be .json, .yaml or .yml")]
    public async Task A_config_file_that_cannot_be_read_is_refused(string name, string text, string expected)
    {
        using var folder = new TempDirectory();
        folder.Write(name, text);
        var result = await VTunnelProgram.RunAsync(["server", "--port", "0", "--config", name], folder: folder.Path);
        Assert.Equal([$"vtunnel: --config '{name}': {expected}"], result.Errors);
        Assert.Equal(ExitCodes.Usage, result.ExitCode);
    }

    [Theory]
    [InlineData("header: 'A: b'\n", "header in client.yaml: a file cannot give this option; give --header on the command line")]
    [InlineData("config: other.yaml\n", "config in client.yaml: a file cannot give this option; give --config on the command line, or VTUNNEL_CONFIG")]
    public async Task A_key_that_is_an_option_of_the_command_line_only_is_told_so(string text, string expected)
    {
        using var folder = new TempDirectory();
        folder.Write("client.yaml", text);
        var result = await VTunnelProgram.RunAsync(["client", "--server", "ws://host/", "--forward", "1=a:1", "--config", "client.yaml"], folder: folder.Path);
        Assert.Equal([$"vtunnel: {expected}"], result.Errors);
    }

    [Fact]
    public async Task A_fault_in_a_file_of_headers_is_told_with_its_line_and_without_its_text()
    {
        using var folder = new TempDirectory();
        folder.Write("headers.txt", "A: b\n\nhunter2\n");
        var result = await VTunnelProgram.RunAsync(["client", "--server", "ws://host/", "--forward", "1=a:1", "-H", "@headers.txt"], folder: folder.Path);
        Assert.Equal(["vtunnel: --header @headers.txt (line 3): a header is 'Name: value', in quotes"], result.Errors);
    }

    [Theory]
    [InlineData("server --tokens .")]
    [InlineData("server --tls-cert cert.pem --tls-key .")]
    [InlineData(AnyClient + "--token-file .")]
    [InlineData(AnyClient + "-H @.")]
    [InlineData("server --config folder.yaml")]
    public async Task A_folder_in_place_of_a_file_is_called_one(string arguments)
    {
        using var folder = new TempDirectory();
        using var certificates = new TestCertificates();
        folder.Write("cert.pem", File.ReadAllText(certificates.CertificateFile));
        Directory.CreateDirectory(folder.File("folder.yaml"));
        var result = await VTunnelProgram.RunAsync(arguments.Split(' '), folder: folder.Path);
        Assert.EndsWith(": this is a folder; a file is needed", Assert.Single(result.Errors), StringComparison.Ordinal);
        Assert.Equal(ExitCodes.Usage, result.ExitCode);
    }

    [Fact]
    public async Task A_token_file_with_faults_is_refused_fault_by_fault()
    {
        using var folder = new TempDirectory();
        folder.Write("tokens.json", """{ "tokens": [ { "name": "alice" }, { "name": "bob", "sha256": "00", "ports": [0] } ] }""");
        folder.Write("empty.json", """{ "tokens": [] }""");

        var faulty = await VTunnelProgram.RunAsync(["server", "--tokens", "tokens.json"], folder: folder.Path);
        Assert.Equal(
            [
                "vtunnel: --tokens 'tokens.json': entry 1 ('alice'): 'sha256' is missing or not 64 hexadecimal digits",
                "vtunnel: --tokens 'tokens.json': entry 2 ('bob'): 'sha256' is missing or not 64 hexadecimal digits",
                "vtunnel: --tokens 'tokens.json': entry 2 ('bob'): 'ports' has '0': ports are numbers from 1 to 65535 or ranges of them, such as 9000,9100-9199",
            ],
            faulty.Errors);

        var empty = await VTunnelProgram.RunAsync(["server", "--tokens", "empty.json"], folder: folder.Path);
        Assert.Equal(["vtunnel: --tokens 'empty.json': no token in this file; add one with 'vtunnel token create'"], empty.Errors);
    }

    [Fact]
    public async Task A_certificate_and_a_key_that_cannot_be_used_are_refused()
    {
        using var folder = new TempDirectory();
        using var certificates = new TestCertificates();
        using var other = ECDsa.Create();
        folder.Write("cert.pem", File.ReadAllText(certificates.CertificateFile));
        folder.Write("other.key", other.ExportPkcs8PrivateKeyPem());
        folder.Write("text.pem", "hello");
        folder.Write("encrypted.key", other.ExportEncryptedPkcs8PrivateKeyPem(
            "password", new PbeParameters(PbeEncryptionAlgorithm.Aes256Cbc, HashAlgorithmName.SHA256, 1000)));

        async Task<string> RunAsync(string certificateFile, string keyFile)
        {
            var result = await VTunnelProgram.RunAsync(["server", "--tls-cert", certificateFile, "--tls-key", keyFile], folder: folder.Path);
            Assert.Equal(ExitCodes.Usage, result.ExitCode);
            return Assert.Single(result.Errors);
        }

        Assert.Equal("vtunnel: --tls-key 'other.key': this is not the key of the certificate in cert.pem", await RunAsync("cert.pem", "other.key"));
        Assert.Equal("vtunnel: --tls-key 'text.pem': no private key in this file; it must be PEM, with '-----BEGIN PRIVATE KEY-----'", await RunAsync("cert.pem", "text.pem"));
        Assert.Equal("vtunnel: --tls-key 'encrypted.key': the key is encrypted; write it without a password: openssl pkey -in KEY -out NEW-KEY", await RunAsync("cert.pem", "encrypted.key"));
        Assert.Equal("vtunnel: --tls-key 'missing.key': there is no such file", await RunAsync("cert.pem", "missing.key"));
        Assert.Equal("vtunnel: --tls-cert 'text.pem': no certificate in this file; it must be PEM, with '-----BEGIN CERTIFICATE-----'", await RunAsync("text.pem", "other.key"));
    }
}
