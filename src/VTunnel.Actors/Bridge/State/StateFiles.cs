using System.Text;

namespace VTunnel.Bridge.State;

/// <summary>Files of the state: readable by their owner alone, and replaced as a whole or not at all.</summary>
internal static class StateFiles
{
    private const UnixFileMode OwnerFile = UnixFileMode.UserRead | UnixFileMode.UserWrite;
    private const UnixFileMode OwnerFolder = OwnerFile | UnixFileMode.UserExecute;

    /// <summary>Makes a folder and those above it; what exists stays as it is.</summary>
    public static void CreateFolder(string path) => Guard(path, () =>
    {
        if (OperatingSystem.IsWindows())
            Directory.CreateDirectory(path);
        else
            Directory.CreateDirectory(path, OwnerFolder);
    });

    /// <summary>Makes an empty file that only its owner can read, unless there is one.</summary>
    public static void CreateFile(string path) => Guard(path, () =>
    {
        if (File.Exists(path))
            return;
        try
        {
            using var file = Open(path, FileMode.CreateNew);
        }
        catch (IOException) when (File.Exists(path))
        {
            // Another process was faster.
        }
    });

    /// <summary>Whoever reads meanwhile sees the old file or the new one; a full disk leaves the old one.</summary>
    public static void Write(string path, byte[] content) => Guard(path, () => Replace(path, content));

    /// <summary>As <see cref="Write(string, byte[])"/>, for a file that is not the state's: whoever named it can name another.</summary>
    public static void WriteOutside(string path, byte[] content)
    {
        try
        {
            Replace(path, content);
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or NotSupportedException)
        {
            // The system's words name the file that is made first, which whoever reads them has never heard of.
            var why = e switch
            {
                DirectoryNotFoundException => "there is no such folder",
                _ when Directory.Exists(path) => "it is a folder",
                UnauthorizedAccessException => "permission denied",
                _ => e.Message.TrimEnd('.'),
            };
            throw new BridgeException(BridgeError.Storage, $"'{path}' cannot be written: {why}; name another file with --out", e);
        }
    }

    private static void Replace(string path, byte[] content)
    {
        var next = $"{path}.{Guid.NewGuid():N}.new";
        try
        {
            using (var file = Open(next, FileMode.CreateNew))
            {
                file.Write(content);
                file.Flush(flushToDisk: true);
            }

            File.Move(next, path, overwrite: true);
        }
        catch
        {
            File.Delete(next);
            throw;
        }
    }

    /// <inheritdoc cref="Write(string, byte[])"/>
    public static void Write(string path, string content) => Write(path, Encoding.UTF8.GetBytes(content));

    /// <summary>The file, or null if there is none.</summary>
    public static byte[]? TryRead(string path)
    {
        byte[]? content = null;
        if (Exists(path))
            Guard(path, () => content = File.ReadAllBytes(path));
        return content;
    }

    /// <summary>Whether there is a file or folder. Unlike the system's own question it does not call absent what it may not look at.</summary>
    /// <exception cref="BridgeException">It cannot be found out.</exception>
    public static bool Exists(string path)
    {
        var exists = false;
        Guard(path, () =>
        {
            try
            {
                _ = File.GetAttributes(path);
                exists = true;
            }
            catch (Exception e) when (e is FileNotFoundException or DirectoryNotFoundException)
            {
                // There is none.
            }
        });
        return exists;
    }

    /// <summary>Whether others than the owner may do anything with a file; also false where there are no such permissions, or it is gone.</summary>
    public static bool IsLoose(string path)
    {
        if (OperatingSystem.IsWindows())
            return false;
        try
        {
            return (File.GetUnixFileMode(path) & ~OwnerFolder) != 0;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            // Whoever needs it is told then.
            return false;
        }
    }

    /// <summary>Turns what the system says into what a user can do something about.</summary>
    public static void Guard(string path, Action action)
    {
        try
        {
            action();
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException or NotSupportedException)
        {
            throw new BridgeException(
                BridgeError.Storage, $"{path} cannot be used: {e.Message.TrimEnd('.')}; see to its permissions and to space on the disk, or give another --state-dir", e);
        }
    }

    private static FileStream Open(string path, FileMode mode)
    {
        var options = new FileStreamOptions { Mode = mode, Access = FileAccess.Write };
        if (!OperatingSystem.IsWindows())
            options.UnixCreateMode = OwnerFile;
        return new FileStream(path, options);
    }
}
