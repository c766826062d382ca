using System.Net;
using System.Net.Sockets;
using Akka.Actor;
using Akka.Hosting;
using Microsoft.AspNetCore.Builder;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;
using Microsoft.Extensions.Options;
using VTunnel.Access;
using VTunnel.Carriers;
using VTunnel.Extensions;
using VTunnel.Hosting;
using VTunnel.Options;
using VTunnel.Routing;
using VTunnel.Testing;
using VTunnel.Testing.Network;

namespace VTunnel.Actors.Tests.Hosting;

/// <summary>Clients and servers as parts of hosts that have services and actors of their own.</summary>
public sealed class EmbeddingTests
{
    private const string OneSystem =
        "The host has an actor system of its own (AddAkka), and it can have one only: add its actors to the tunnel's with builder.ConfigureVTunnelActors instead.";

    [Fact]
    public async Task An_authoriser_of_a_host_with_a_client_is_asked_before_a_visitor_is_carried()
    {
        var asked = new TaskCompletionSource<AuthorizationProtocol.AuthorizeConnect>(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var target = TargetServer.StartEcho();
        await using var server = await TunnelPair.StartServerAsync();
        var port = FreePorts.Next();
        var builder = Host.CreateEmptyApplicationBuilder(null);
        builder.AddVTunnelClient(options =>
        {
            options.Server = TunnelPair.AddressOf(server);
            options.AutoReconnect = true;
        });
        builder.AddVTunnelAuthorizer(_ => Props.Create(() => new Refuser(asked)));
        using var host = builder.Build();
        await host.StartAsync();
        await host.Services.GetRequiredService<TunnelClient>().ListenAsync(Rule(port, target.Port)).WaitAsync(TestTimeouts.Long);

        using var visitor = new TcpClient();
        await visitor.ConnectAsync(IPAddress.Loopback, port);
        Assert.Equal(port, (await asked.Task.WaitAsync(TestTimeouts.Long)).Stream.Port);
        await AssertCutAsync(visitor);
        Assert.Equal(0, target.ConnectionCount);
        await host.StopAsync();
    }

    [Fact]
    public async Task A_service_that_connects_while_the_host_starts_is_behind_every_extension()
    {
        await using var server = await TunnelPair.StartServerAsync();
        var builder = Host.CreateEmptyApplicationBuilder(null);
        builder.Services.AddHostedService<ConnectingService>();
        builder.AddVTunnelClient(options => options.Server = TunnelPair.AddressOf(server));
        builder.AddVTunnelActor("early", _ => Props.Empty);
        using var host = builder.Build();
        await host.StartAsync().WaitAsync(TestTimeouts.Long);
        Assert.True(host.Services.GetServices<IHostedService>().OfType<ConnectingService>().Single().ActorWasThere);
        await host.StopAsync();
    }

    [Fact]
    public async Task A_client_that_is_used_before_its_host_has_started_starts_the_extensions_itself()
    {
        var started = new TaskCompletionSource(TaskCreationOptions.RunContinuationsAsynchronously);
        await using var server = await TunnelPair.StartServerAsync();
        var builder = Host.CreateEmptyApplicationBuilder(null);
        builder.AddVTunnelClient(options => options.Server = TunnelPair.AddressOf(server));
        builder.AddVTunnelActor("early", _ => Props.Create(() => new Starter(started)));
        using var host = builder.Build();
        await host.Services.GetRequiredService<TunnelClient>().ConnectAsync().WaitAsync(TestTimeouts.Long);
        await started.Task.WaitAsync(TestTimeouts.Long);
        await host.StartAsync().WaitAsync(TestTimeouts.Long);
        await host.StopAsync();
    }

    [Fact]
    public async Task An_authoriser_that_does_not_start_keeps_the_host_from_starting()
    {
        var builder = Host.CreateEmptyApplicationBuilder(null);
        builder.AddVTunnelClient(options => options.Server = new Uri("ws://127.0.0.1:1/"));
        builder.AddVTunnelAuthorizer(_ => throw new NotSupportedException("no authoriser today"));
        using var host = builder.Build();
        await Assert.ThrowsAnyAsync<Exception>(() => host.StartAsync().WaitAsync(TestTimeouts.Long));
        await Assert.ThrowsAnyAsync<Exception>(() => host.Services.GetRequiredService<TunnelClient>().ConnectAsync().WaitAsync(TestTimeouts.Long));
    }

    [Fact]
    public void An_actor_system_that_the_host_has_already_is_a_fault_that_says_what_to_use()
    {
        var builder = Host.CreateEmptyApplicationBuilder(null);
        builder.Services.AddAkka("myapp", _ => { });
        Assert.Equal(OneSystem, Assert.Throws<InvalidOperationException>(() => builder.AddVTunnelServer()).Message);
    }

    [Fact]
    public async Task An_actor_system_that_is_added_later_is_a_fault_at_the_start_that_says_what_to_use()
    {
        var builder = WebApplication.CreateSlimBuilder();
        builder.AddVTunnelServer();
        builder.Services.AddAkka("myapp", _ => { });
        await using var app = builder.Build();
        var fault = await Assert.ThrowsAsync<InvalidOperationException>(() => app.StartAsync().WaitAsync(TestTimeouts.Long));
        Assert.Equal(OneSystem, fault.Message);
    }

    [Fact]
    public async Task Tokens_that_are_taken_out_of_the_options_of_a_running_server_do_not_open_it()
    {
        await using var server = await TunnelPair.StartServerAsync(options => options.Tokens = [AccessTokens.EntryFor("alice", AccessTokens.Generate())]);
        server.Services.GetRequiredService<IOptions<TunnelServerOptions>>().Value.Tokens = [];
        await using var stranger = TunnelClient.Create(new TunnelClientOptions { Server = TunnelPair.AddressOf(server) });
        await Assert.ThrowsAsync<TunnelConnectException>(() => stranger.ConnectAsync().WaitAsync(TestTimeouts.Long));
    }

    [Fact]
    public void What_the_library_says_of_itself_comes_with_it()
    {
        foreach (var type in new[] { typeof(TunnelClient), typeof(VTunnel.Protocol.V2.V2Session) })
        {
            var text = File.ReadAllText(Path.ChangeExtension(type.Assembly.Location, ".xml"));
            Assert.Contains($"<member name=\"T:{type.FullName}\">", text, StringComparison.Ordinal);
        }
    }

    [Fact]
    public void What_there_can_be_one_of_is_refused_when_it_is_added_twice()
    {
        var builder = Host.CreateEmptyApplicationBuilder(null);
        builder.AddVTunnelServer().AddVTunnelClient().AddVTunnelAuthorizer(_ => Props.Empty);
        foreach (var (again, name) in new (Action, string)[]
        {
            (() => builder.AddVTunnelServer(), "AddVTunnelServer"),
            (() => builder.AddVTunnelClient(), "AddVTunnelClient"),
            (() => builder.AddVTunnelAuthorizer(_ => Props.Empty), "AddVTunnelAuthorizer"),
        })
            Assert.StartsWith($"{name} was called before", Assert.Throws<InvalidOperationException>(again).Message, StringComparison.Ordinal);
    }

    [Theory]
    [InlineData("audit-log", "An actor 'audit-log' was added before")]
    [InlineData("tunnel-server", "'tunnel-server' is the name of an actor of the tunnel's own")]
    [InlineData("tunnel-authorizer", "'tunnel-authorizer' is the name of an actor of the tunnel's own")]
    [InlineData("my actor", "'my actor' is no name for an actor")]
    [InlineData("a/b", "'a/b' is no name for an actor")]
    [InlineData("$a", "'$a' is no name for an actor")]
    public void A_name_that_no_further_actor_can_have_is_refused_at_once(string name, string message)
    {
        var builder = Host.CreateEmptyApplicationBuilder(null);
        builder.AddVTunnelActor("audit-log", _ => Props.Empty);
        var fault = Assert.Throws<ArgumentException>(() => builder.AddVTunnelActor(name, _ => Props.Empty));
        Assert.StartsWith(message, fault.Message, StringComparison.Ordinal);
    }

    private static ForwardRule Rule(int port, int targetPort) => new(port, new ForwardTarget(TargetScheme.Tcp, "127.0.0.1", targetPort));

    /// <summary>The end comes as FIN or RST; either way without a byte.</summary>
    private static async Task AssertCutAsync(TcpClient visitor)
    {
        try
        {
            Assert.Equal(0, await visitor.GetStream().ReadAsync(new byte[1]).AsTask().WaitAsync(TestTimeouts.Long));
        }
        catch (IOException)
        {
            // RST.
        }
    }

    private sealed class Refuser(TaskCompletionSource<AuthorizationProtocol.AuthorizeConnect> asked) : UntypedActor
    {
        protected override void OnReceive(object message)
        {
            Sender.Tell(new AuthorizationProtocol.Denied("nobody is let in"));
            if (message is AuthorizationProtocol.AuthorizeConnect connect)
                asked.TrySetResult(connect);
        }
    }

    private sealed class Starter(TaskCompletionSource started) : UntypedActor
    {
        protected override void PreStart() => started.TrySetResult();

        protected override void OnReceive(object message) => Unhandled(message);
    }

    private sealed class ConnectingService(TunnelClient client, ActorSystem system) : IHostedService
    {
        public bool ActorWasThere { get; private set; }

        public async Task StartAsync(CancellationToken cancellationToken)
        {
            await client.ConnectAsync(cancellationToken);
            ActorWasThere = await system.ActorSelection("/user/early").ResolveOne(TestTimeouts.Long, cancellationToken) is not null;
        }

        public Task StopAsync(CancellationToken cancellationToken) => Task.CompletedTask;
    }
}
