// A web application with a tunnel server inside. Run it, then let a client dial ws://localhost:5000/tunnel:
//
//   dotnet run --project examples/EmbedServer --urls http://localhost:5000
//   dotnet run --project examples/EmbedClient ws://localhost:5000/tunnel 9000=localhost:3000
using VTunnel.Hosting;

var builder = WebApplication.CreateBuilder(args);
builder.AddVTunnelServer(options => options.MaxSessions = 100);

var app = builder.Build();
app.MapGet("/", () => "Clients of the tunnel dial /tunnel.\n");
app.MapVTunnel("/tunnel");
app.Run();
