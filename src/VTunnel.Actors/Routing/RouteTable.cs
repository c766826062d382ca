using System.Collections.Frozen;
using System.Diagnostics.CodeAnalysis;

namespace VTunnel.Routing;

/// <summary>
/// Which route a host and port take. Immutable: a change is another table. Exact names beat wildcards, wildcards in front
/// beat those at the end, and of two of the same kind the longer wins.
/// </summary>
/// <typeparam name="TRoute">Where a route leads.</typeparam>
public sealed class RouteTable<TRoute>
    where TRoute : class
{
    /// <summary>Routes nothing.</summary>
    public static readonly RouteTable<TRoute> Empty = new([]);

    private readonly FrozenDictionary<(HostPatternKind Kind, string Name, int Port), TRoute> _routes;
    private readonly bool _hasWildcards;

    /// <summary>Makes one. Of two entries that mean the same the later counts.</summary>
    public RouteTable(IEnumerable<(HostPattern Pattern, int Port, TRoute Route)> entries)
    {
        var routes = new Dictionary<(HostPatternKind, string, int), TRoute>();
        foreach (var (pattern, port, route) in entries)
            routes[(pattern.Kind, pattern.Name, port)] = route;
        _routes = routes.ToFrozenDictionary();
        _hasWildcards = routes.Keys.Any(key => key.Item1 != HostPatternKind.Exact);
    }

    /// <summary>The number of hosts (or wildcards) and ports that are routed.</summary>
    public int Count => _routes.Count;

    /// <summary>All routes, each once.</summary>
    public IEnumerable<TRoute> Routes => _routes.Values.Distinct();

    /// <summary>The route of a host.</summary>
    /// <param name="host">Normalised: <see cref="HostName.TryNormalize"/>.</param>
    /// <param name="port">1 to 65535.</param>
    /// <param name="route">The route, or null.</param>
    public bool TryFind(string host, int port, [NotNullWhen(true)] out TRoute? route)
    {
        if (_routes.TryGetValue((HostPatternKind.Exact, host, port), out route))
            return true;
        if (!_hasWildcards || HostName.AddressOf(host) is not null)
            return false;

        for (var dot = host.IndexOf('.', StringComparison.Ordinal); dot >= 0; dot = host.IndexOf('.', dot + 1))
        {
            if (_routes.TryGetValue((HostPatternKind.Leading, host[(dot + 1)..], port), out route))
                return true;
        }

        for (var dot = host.LastIndexOf('.'); dot > 0; dot = host.LastIndexOf('.', dot - 1))
        {
            if (_routes.TryGetValue((HostPatternKind.Trailing, host[..dot], port), out route))
                return true;
        }

        return false;
    }
}
