namespace VTunnel.Bridge;

/// <summary>Why a command or a part of the bridge cannot go on. The message is for people and says what would be right.</summary>
public enum BridgeError
{
    /// <summary>What was asked for makes no sense as the state is: an unknown user, a name that is taken.</summary>
    Invalid = 1,

    /// <summary>A file of the state, or a bundle, is damaged, of another version, or not what it should be.</summary>
    Damaged = 2,

    /// <summary>The state directory cannot be read or written.</summary>
    Storage = 3,
}

/// <summary>Something of the bridge's state or identities is not as it should be.</summary>
public sealed class BridgeException : Exception
{
    /// <summary>Makes one.</summary>
    public BridgeException(BridgeError code, string message, Exception? inner = null)
        : base(message, inner) => Code = code;

    /// <summary>Branch on this, never on the text.</summary>
    public BridgeError Code { get; }
}
