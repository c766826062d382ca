using System.Net;
using System.Text;
using Microsoft.AspNetCore.Builder;
using Microsoft.AspNetCore.Hosting;
using Microsoft.Extensions.Configuration;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Options;
using VTunnel.Access;
using VTunnel.Hosting;
using VTunnel.Options;
using VTunnel.Testing;

namespace VTunnel.Actors.Tests.Hosting;

/// <summary>Options as they stand in <c>appsettings.json</c>.</summary>
public sealed class ConfiguredOptionsTests
{
    private static readonly string HexHash = string.Concat(Enumerable.Repeat("0a", 32));
    private static readonly string Base64Hash = Convert.ToBase64String([.. Enumerable.Repeat((byte)11, 32)]);

    [Fact]
    public void Every_option_of_a_server_is_read()
    {
        var options = Server($$"""
            {
              "ListenAddress": "0.0.0.0", "Protocol": "v2", "IdleTimeout": "infinite", "ProbeTimeout": "3s", "HandshakeTimeout": "00:00:04",
              "DrainTimeout": "1m30s", "ListenRetryTimeout": "0", "MaxMessageBytes": 65536, "StreamBufferBytes": 65537, "ResumeWindow": "1h",
              "MaxStreamWindowBytes": 262144, "MaxSessionWindowBytes": 1048576, "MaxSessions": 7, "MaxListenersPerSession": 8, "MaxStreamsPerSession": 9,
              "Tokens": [
                { "Name": "alice", "Sha256": "{{HexHash}}", "Ports": "9000,9100-9199" },
                { "name": "bob", "sha256": "{{Base64Hash}}", "ports": ["9000", 9001] },
                { "name": "carol", "sha256": "{{string.Concat(Enumerable.Repeat("0C", 32))}}" }
              ],
              "AllowedOrigins": ["https://app.example.com"],
              "Proxy": {
                "Port": 8080, "Address": "::1", "Credentials": ["ci:s3cret:x"], "Open": true, "AllowDirect": false, "Allowed": ["*.Example.test", "a.test:81"],
                "Addresses": ["API.test=10.0.0.5"], "HeaderTimeout": "1s", "KeepAliveTimeout": "2s", "ConnectTimeout": "3s", "MaxConnections": 4
              }
            }
            """);

        var proxy = options.Proxy!;
        Assert.Equal(
            new TunnelServerOptions
            {
                ListenAddress = IPAddress.Any,
                Protocol = ProtocolPreference.V2,
                IdleTimeout = Timeout.InfiniteTimeSpan,
                ProbeTimeout = TimeSpan.FromSeconds(3),
                HandshakeTimeout = TimeSpan.FromSeconds(4),
                DrainTimeout = TimeSpan.FromSeconds(90),
                ListenRetryTimeout = TimeSpan.Zero,
                MaxMessageBytes = 65536,
                StreamBufferBytes = 65537,
                ResumeWindow = TimeSpan.FromHours(1),
                MaxStreamWindowBytes = 262144,
                MaxSessionWindowBytes = 1048576,
                MaxSessions = 7,
                MaxListenersPerSession = 8,
                MaxStreamsPerSession = 9,
                Tokens = options.Tokens,
                AllowedOrigins = options.AllowedOrigins,
                Proxy = proxy,
            },
            options);
        Assert.Equal(["alice 9000,9100-9199", "bob 9000,9001", "carol "], options.Tokens.Select(token => $"{token.Name} {string.Join(',', token.Ports)}"));
        Assert.All(options.Tokens.Zip([10, 11, 12]), pair => Assert.All(pair.First.Sha256.ToArray(), value => Assert.Equal(pair.Second, value)));
        Assert.Equal(["https://app.example.com"], options.AllowedOrigins);
        Assert.Equal(
            new ProxyOptions
            {
                Port = 8080,
                Address = IPAddress.IPv6Loopback,
                Credentials = proxy.Credentials,
                Open = true,
                AllowDirect = false,
                Allowed = proxy.Allowed,
                Addresses = proxy.Addresses,
                CertificateChain = proxy.CertificateChain,
                HeaderTimeout = TimeSpan.FromSeconds(1),
                KeepAliveTimeout = TimeSpan.FromSeconds(2),
                ConnectTimeout = TimeSpan.FromSeconds(3),
                MaxConnections = 4,
            },
            proxy);
        Assert.Equal([new ProxyCredential("ci", new Secret("s3cret:x"))], proxy.Credentials);
        Assert.Equal(["*.example.test", "a.test:81"], proxy.Allowed.Select(pattern => pattern.ToString()));
        Assert.Equal([new HostAddress("api.test", IPAddress.Parse("10.0.0.5"))], proxy.Addresses);
    }

    [Fact]
    public void Every_option_of_a_client_is_read()
    {
        var options = Client("""
            {
              "Server": "wss://tunnel.example.com/x", "Forwards": ["9000=localhost:3000", { "Forward": "gitlab.corp=tls://a.test", "Headers": { "X-From": "here" } }],
              "Headers": ["X-Proxy: a: b", "X-Other: c"], "Token": "t0ken", "Protocol": "V1", "PingInterval": "-1s", "AutoReconnect": true,
              "ReconnectMin": "2s", "ReconnectMax": "3s", "StableAfter": "4s", "ConnectTimeout": "5s", "TargetConnectTimeout": "6s", "DrainTimeout": "7s",
              "MaxMessageBytes": 65536, "StreamBufferBytes": 65537, "ResumeWindow": "8s", "MaxStreamWindowBytes": 262144,
              "MaxSessionWindowBytes": 1048576, "MaxStreams": 9, "ServerTls": { "Insecure": true }, "TargetTls": { "Insecure": "true" }
            }
            """);

        Assert.Equal(
            new TunnelClientOptions
            {
                Server = new Uri("wss://tunnel.example.com/x"),
                Forwards = options.Forwards,
                Headers = options.Headers,
                Token = new Secret("t0ken"),
                Protocol = ProtocolPreference.V1,
                PingInterval = TimeSpan.FromSeconds(-1),
                AutoReconnect = true,
                ReconnectMin = TimeSpan.FromSeconds(2),
                ReconnectMax = TimeSpan.FromSeconds(3),
                StableAfter = TimeSpan.FromSeconds(4),
                ConnectTimeout = TimeSpan.FromSeconds(5),
                TargetConnectTimeout = TimeSpan.FromSeconds(6),
                DrainTimeout = TimeSpan.FromSeconds(7),
                MaxMessageBytes = 65536,
                StreamBufferBytes = 65537,
                ResumeWindow = TimeSpan.FromSeconds(8),
                MaxStreamWindowBytes = 262144,
                MaxSessionWindowBytes = 1048576,
                MaxStreams = 9,
                ServerTls = new TlsTrustOptions { Insecure = true },
                TargetTls = new TlsTrustOptions { Insecure = true },
            },
            options);
        Assert.Equal(["9000=localhost:3000", "gitlab.corp=tls://a.test:443"], options.Forwards.Select(rule => rule.ToString()));
        Assert.Equal("here", Assert.Single(options.Forwards[1].Headers).Value);
        Assert.Equal([KeyValuePair.Create("X-Proxy", "a: b"), KeyValuePair.Create("X-Other", "c")], options.Headers);
    }

    /// <summary>Whoever adds an option must say how it stands in configuration.</summary>
    [Theory]
    [InlineData(typeof(TunnelServerOptions))]
    [InlineData(typeof(TunnelClientOptions))]
    public void No_option_is_unknown_to_configuration(Type type)
    {
        var section = Section("""{ "Nonsense": 1 }""");
        var fault = Assert.Throws<OptionsValidationException>(() =>
        {
            if (type == typeof(TunnelServerOptions))
                OptionSections.Read(section, new TunnelServerOptions());
            else
                OptionSections.Read(section, new TunnelClientOptions());
        });
        var names = string.Join(", ", type.GetProperties().Select(property => property.Name));
        Assert.Equal([$"Options:Nonsense: not known; there are {names}"], fault.Failures);
    }

    [Fact]
    public void Everything_that_is_not_understood_is_told_at_once_and_no_secret_with_it()
    {
        var fault = Assert.Throws<OptionsValidationException>(() => Server($$"""
            {
              "ListenAddress": "1", "Protocol": "1", "IdleTimeout": "5", "MaxSessions": "many", "MaxStreamsPerSession": null,
              "Tokens": [ { "Name": "a", "Sha256": "s3cret" }, { "Name": "b" }, "s3cret", { "Name": "c", "Sha256": "{{HexHash}}", "Ports": [] }, { "Name": "d", "Sha256": "{{HexHash}}", "Ports": "x" } ],
              "AllowedOrigins": "https://a.test",
              "Proxy": { "Credentials": ["s3cret"], "Certificate": "a.pem", "Adresses": [] }
            }
            """));
        Assert.Equal(
            [
                "Options:AllowedOrigins: a list is needed, with a text for each",
                "Options:IdleTimeout '5': must be a duration, such as 2s, 1m30s or 00:00:02",
                "Options:ListenAddress '1': must be an IP address, such as 127.0.0.1 or ::1",
                "Options:MaxSessions 'many': must be a whole number",
                "Options:MaxStreamsPerSession: must be a whole number",
                "Options:Protocol '1': must be one of Auto, V1, V2",
                "Options:Proxy:Adresses: not known; there are Port, Address, Credentials, Open, AllowDirect, Allowed, Addresses, InterceptionAuthority, Certificate, CertificateChain, CertificateSelector, HeaderTimeout, KeepAliveTimeout, ConnectTimeout, MaxConnections",
                "Options:Proxy:Certificate: this cannot be read from configuration; set it in code",
                "Options:Proxy:Credentials:0: write USER:PASSWORD",
                "Options:Tokens:0:Sha256: must be a SHA-256, in 64 hexadecimal digits or in base64",
                "Options:Tokens:1: a token needs a Name and its Sha256",
                "Options:Tokens:2: a token needs a Name and its Sha256",
                "Options:Tokens:3:Ports '': ports are numbers from 1 to 65535 or ranges of them, such as 9000,9100-9199",
                "Options:Tokens:4:Ports 'x': ports are numbers from 1 to 65535 or ranges of them, such as 9000,9100-9199",
            ],
            fault.Failures.Order(StringComparer.Ordinal));
    }

    [Theory]
    [InlineData("null")]
    [InlineData("\"abc\"")]
    [InlineData("{}")]
    public void Tokens_that_are_no_list_do_not_open_a_server(string tokens) =>
        Assert.Throws<OptionsValidationException>(() => Server($$"""{ "Tokens": {{tokens}} }"""));

    [Fact]
    public void An_empty_list_is_an_empty_list() => Assert.Empty(Server("""{ "Tokens": [], "AllowedOrigins": [] }""").Tokens);

    [Fact]
    public void A_section_that_is_not_there_is_a_fault()
    {
        var section = new ConfigurationBuilder().Build().GetSection("VTunel:Server");
        var fault = Assert.Throws<OptionsValidationException>(() => OptionSections.Read(section, new TunnelServerOptions()));
        Assert.Equal(["VTunel:Server: the configuration has no such section"], fault.Failures);
    }

    [Fact]
    public async Task A_server_with_a_section_asks_for_the_tokens_that_stand_in_it()
    {
        var token = AccessTokens.Generate();
        var hash = Convert.ToHexStringLower(AccessTokens.EntryFor("alice", token).Sha256.Span);
        await using var app = Build(
            $$"""{ "Tokens": [ { "name": "alice", "sha256": "{{hash}}" } ] }""",
            (builder, section) => builder.AddVTunnelServer(section, options => options.MaxSessions = 3));
        app.MapVTunnel("/tunnel");
        await app.StartAsync();
        Assert.Equal(3, app.Services.GetRequiredService<IOptions<TunnelServerOptions>>().Value.MaxSessions);

        await using var stranger = TunnelClient.Create(new TunnelClientOptions { Server = TunnelPair.AddressOf(app) });
        await Assert.ThrowsAsync<VTunnel.Carriers.TunnelConnectException>(() => stranger.ConnectAsync().WaitAsync(TestTimeouts.Long));
        await using var alice = TunnelClient.Create(new TunnelClientOptions { Server = TunnelPair.AddressOf(app), Token = token });
        await alice.ConnectAsync().WaitAsync(TestTimeouts.Long);
    }

    [Fact]
    public async Task A_server_with_a_wrong_section_does_not_start()
    {
        await using var app = Build("""{ "Token": [] }""", (builder, section) => builder.AddVTunnelServer(section));
        var fault = await Assert.ThrowsAsync<OptionsValidationException>(() => app.StartAsync());
        Assert.StartsWith("Options:Token: not known", Assert.Single(fault.Failures), StringComparison.Ordinal);
    }

    [Fact]
    public async Task Options_that_the_binder_of_dotnet_has_read_keep_the_host_from_starting()
    {
        await using var server = Build("""{ "MaxSessions": 3 }""", (builder, section) =>
        {
            builder.AddVTunnelServer();
            builder.Services.Configure<TunnelServerOptions>(section);
        });
        Assert.Contains("TunnelServerOptions: bound to configuration with .NET's binder", (await Assert.ThrowsAsync<OptionsValidationException>(() => server.StartAsync())).Message, StringComparison.Ordinal);

        await using var client = Build("""{ "Server": "ws://127.0.0.1:1/" }""", (builder, _) =>
        {
            builder.AddVTunnelClient();
            builder.Services.AddOptions<TunnelClientOptions>().BindConfiguration("Options");
        });
        Assert.Contains("TunnelClientOptions: bound to configuration with .NET's binder", (await Assert.ThrowsAsync<OptionsValidationException>(() => client.StartAsync())).Message, StringComparison.Ordinal);
    }

    private static IConfigurationSection Section(string json) =>
        new ConfigurationBuilder().AddJsonStream(new MemoryStream(Encoding.UTF8.GetBytes($$"""{ "Options": {{json}} }"""))).Build().GetSection("Options");

    private static TunnelServerOptions Server(string json)
    {
        var options = new TunnelServerOptions();
        OptionSections.Read(Section(json), options);
        return options;
    }

    private static TunnelClientOptions Client(string json)
    {
        var options = new TunnelClientOptions();
        OptionSections.Read(Section(json), options);
        return options;
    }

    private static WebApplication Build(string json, Action<WebApplicationBuilder, IConfiguration> add)
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.WebHost.ConfigureKestrel(kestrel => kestrel.Listen(IPAddress.Loopback, 0));
        builder.Configuration.AddJsonStream(new MemoryStream(Encoding.UTF8.GetBytes($$"""{ "Options": {{json}} }""")));
        add(builder, builder.Configuration.GetSection("Options"));
        return builder.Build();
    }
}
