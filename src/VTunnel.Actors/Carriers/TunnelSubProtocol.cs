namespace VTunnel.Carriers;

/// <summary>How the two ends of a WebSocket find out which protocol they share.</summary>
public static class TunnelSubProtocol
{
    /// <summary>
    /// Offered before <see cref="V2"/> by clients that speak both: a WebSocket library that selects the first name it is
    /// offered, whatever that is, then selects what it can speak. As good as no subprotocol at all.
    /// </summary>
    public const string V1 = "vtunnel.v1";

    /// <summary>Offered by clients and selected by servers that know protocol v2. Without it both speak v1.</summary>
    public const string V2 = "vtunnel.v2";
}
