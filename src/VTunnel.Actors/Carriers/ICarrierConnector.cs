namespace VTunnel.Carriers;

/// <summary>Dials the server.</summary>
public interface ICarrierConnector
{
    /// <summary>Connects. The caller owns the carrier.</summary>
    /// <exception cref="TunnelConnectException">No connection, with the leg that failed.</exception>
    Task<ICarrier> ConnectAsync(CancellationToken cancellationToken);
}

/// <summary>Why a client has no connection.</summary>
public enum ConnectError
{
    /// <summary>The name did not resolve, nobody listened, or the network failed.</summary>
    Unreachable = 1,

    /// <summary>The server's certificate was not accepted.</summary>
    TlsFailed = 2,

    /// <summary>The server wants another token (401).</summary>
    Unauthorized = 3,

    /// <summary>The server or a proxy in front of it refused the upgrade (any status but 401 and 403).</summary>
    Refused = 4,

    /// <summary>No answer in time.</summary>
    TimedOut = 5,

    /// <summary>The connection was there and is lost, and reconnecting is off.</summary>
    ConnectionLost = 6,

    /// <summary>The client was stopped meanwhile.</summary>
    Stopped = 7,

    /// <summary>The server or a proxy in front of it does not admit this client (403).</summary>
    Forbidden = 8,
}

/// <summary>A client could not connect, or lost its connection and may not reconnect.</summary>
public sealed class TunnelConnectException : Exception
{
    /// <summary>Makes one.</summary>
    public TunnelConnectException(ConnectError code, string message, Exception? inner = null)
        : base(message, inner) => Code = code;

    /// <summary>What failed; branch on this, never on the text.</summary>
    public ConnectError Code { get; }
}
