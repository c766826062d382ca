namespace VTunnel.Bridge.State;

/// <summary>What commands do with folders and files of the state beside <see cref="StateDirectory"/>.</summary>
public static class StateFolder
{
    /// <summary>Makes a folder if need be and sees to it that it can be written.</summary>
    /// <exception cref="BridgeException">It cannot.</exception>
    public static void RequireWritable(string path)
    {
        StateFiles.CreateFolder(path);
        var probe = Path.Combine(path, $".{Guid.NewGuid():N}.probe");
        StateFiles.Write(probe, new byte[4096]);
        File.Delete(probe);
    }

    /// <summary>Writes a file outside of the state that only its owner can read, as a whole or not at all.</summary>
    /// <exception cref="BridgeException">It cannot be written.</exception>
    public static void WritePrivate(string path, byte[] content) => StateFiles.WriteOutside(path, content);
}
