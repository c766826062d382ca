namespace VTunnel.Carriers;

/// <summary>How the two ends of a WebSocket find out which protocol they share.</summary>
public static class TunnelSubProtocol
{
    /// <summary>Offered by clients and selected by servers that know protocol v2. Without it both speak v1.</summary>
    public const string V2 = "vtunnel.v2";
}
