using VTunnel.Routing;
using VTunnel.Sessions;

namespace VTunnel.Proxy;

/// <summary>Everything that the proxy knows about sessions, at one moment. Immutable; replaced as a whole.</summary>
/// <param name="Table">What is routed where.</param>
/// <param name="Waiting">The sessions that have no connection to their clients at the moment.</param>
public sealed record ProxyRoutes(RouteTable<ProxyRoute> Table, IReadOnlySet<string> Waiting)
{
    /// <summary>Routes nothing.</summary>
    public static readonly ProxyRoutes Empty = new(RouteTable<ProxyRoute>.Empty, new HashSet<string>());

    /// <summary>Whether a session, by its name, has no connection or is gone.</summary>
    internal bool IsWaiting(string session) => Waiting.Contains(session) || Table.Routes.All(route => route.SessionName != session);
}

/// <summary>What the proxy knows now. Thread-safe.</summary>
internal sealed class CurrentRoutes
{
    private volatile ProxyRoutes _value = ProxyRoutes.Empty;

    /// <summary>Told of each new table; set once, before the first of them.</summary>
    public Action<RouteTable<ProxyRoute>>? Changed { get; set; }

    public ProxyRoutes Value
    {
        get => _value;
        set
        {
            _value = value;
            Changed?.Invoke(value.Table);
        }
    }
}

/// <summary>What a proxy's actor is told and says.</summary>
public static class ProxyProtocol
{
    /// <summary>To the proxy: route by these from now on. Answered with <see cref="SessionProtocol.RoutesTaken"/> when it does.</summary>
    public sealed record SetRoutes(ProxyRoutes Routes);

    /// <summary>To the proxy: take no new connections.</summary>
    public sealed record StopAccepting
    {
        /// <summary>The one instance.</summary>
        public static readonly StopAccepting Instance = new();
    }

    /// <summary>To the proxy; answered with <see cref="Listening"/> or <see cref="ListenFailed"/>, when that is known.</summary>
    public sealed record GetAddress
    {
        /// <summary>The one instance.</summary>
        public static readonly GetAddress Instance = new();
    }

    /// <summary>The proxy listens.</summary>
    public sealed record Listening(System.Net.IPEndPoint Address);

    /// <summary>The proxy cannot listen, and why.</summary>
    public sealed record ListenFailed(Exception Cause);
}
