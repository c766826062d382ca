// A tunnel server with three extensions; docs/extending.md explains them.
using System.Net;
using Akka.Actor;
using Extending;
using VTunnel.Hosting;
using VTunnel.Options;

var builder = WebApplication.CreateBuilder(args);
builder.AddVTunnelServer();
builder.AddVTunnelActor("audit-log", provider => AuditLogActor.Props(provider.GetRequiredService<ILogger<AuditLogActor>>()));
builder.AddVTunnelMiddleware(provider => new BandwidthLimit(provider.GetRequiredService<ActorSystem>(), bytesPerSecond: 10_000_000));
builder.AddVTunnelAuthorizer(_ => PortAuthorizerActor.Props([new PortRange(9000, 9999)], [IPNetwork.Parse("127.0.0.0/8")]));

var app = builder.Build();
app.MapVTunnel("/tunnel");
app.Run();
