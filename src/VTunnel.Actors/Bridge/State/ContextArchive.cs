using System.IO.Compression;

namespace VTunnel.Bridge.State;

/// <summary>A whole context in one zip file, keys included, to be moved to another machine.</summary>
public static class ContextArchive
{
    private const string Marker = "vtunnel-context";
    private const int MaxFiles = 16;
    private const long MaxFileBytes = 256L * 1024 * 1024;

    /// <summary>Writes a context.</summary>
    /// <exception cref="BridgeException">There is no such context, or the file cannot be written.</exception>
    public static void Export(StateDirectory state, string name, string path)
    {
        ArgumentNullException.ThrowIfNull(state);
        state.Load(name);
        using var file = new MemoryStream();
        StateFiles.Guard(state.Path, () =>
        {
            using var zip = new ZipArchive(file, ZipArchiveMode.Create, leaveOpen: true);
            Add(zip, Marker, System.Text.Encoding.UTF8.GetBytes(name));
            foreach (var content in Directory.GetFiles(state.FolderOf(name)).Where(IsKept))
                Add(zip, Path.GetFileName(content), content.EndsWith(".db", StringComparison.Ordinal) ? SqliteFile.Snapshot(content) : File.ReadAllBytes(content));
        });
        StateFiles.WriteOutside(path, file.ToArray());
    }

    /// <summary>Reads what <see cref="Export"/> wrote.</summary>
    /// <returns>The name of the new context; null if the file is something else.</returns>
    /// <exception cref="BridgeException">It is damaged, or the name is taken.</exception>
    public static string? TryImport(StateDirectory state, string path, string? name)
    {
        ArgumentNullException.ThrowIfNull(state);
        if (path.Length == 0)
            return null;
        try
        {
            using var zip = ZipFile.OpenRead(path);
            if (zip.GetEntry(Marker) is not { } marker)
                return null;
            using var reader = new StreamReader(marker.Open());
            var chosen = name ?? state.FreeName(reader.ReadLine() ?? "");
            if (state.HasContext(chosen))
                throw new BridgeException(BridgeError.Invalid, $"there is a context '{chosen}' already; choose another name: --context NAME");
            if (zip.Entries.Count > MaxFiles || zip.Entries.Any(entry => entry.FullName != entry.Name || entry.Name is "." or ".." or "" || entry.Length > MaxFileBytes))
                throw new BridgeException(BridgeError.Damaged, $"{path}: this is not what 'vtunnel config export' wrote");
            Unpack(zip, state, chosen);
            return chosen;
        }
        catch (InvalidDataException)
        {
            // No zip file, or a truncated one: whoever reads bundles says so.
            return null;
        }
        catch (Exception e) when (e is IOException or UnauthorizedAccessException)
        {
            throw new BridgeException(BridgeError.Invalid, $"{path}: {Options.OptionRules.FileProblem(path, e)}", e);
        }
    }

    /// <summary>Beside the contexts first: one that is not whole would be in the way of all others.</summary>
    private static void Unpack(ZipArchive zip, StateDirectory state, string name)
    {
        var (folder, target) = (Path.Combine(state.Path, "importing", Guid.NewGuid().ToString("N")), state.FolderOf(name));
        if (StateFiles.Exists(target))
            throw new BridgeException(BridgeError.Invalid, $"{target} is in the way, which is no whole context: move it away, or choose another name: --context NAME");
        StateFiles.CreateFolder(folder);
        try
        {
            foreach (var entry in zip.Entries.Where(entry => entry.Name != Marker))
            {
                using var stream = entry.Open();
                using var content = new MemoryStream();
                stream.CopyTo(content);
                StateFiles.Write(Path.Combine(folder, entry.Name), content.ToArray());
            }

            StateDirectory.LoadFrom(folder);
            StateFiles.CreateFolder(Path.GetDirectoryName(target)!);
            StateFiles.Guard(target, () => Directory.Move(folder, target));
        }
        catch
        {
            Directory.Delete(folder, recursive: true);
            throw;
        }
    }

    /// <summary>Not the parts of a database that are only of use to who has it open, nor what another program is just writing.</summary>
    private static bool IsKept(string path) =>
        !path.EndsWith("-wal", StringComparison.Ordinal) && !path.EndsWith("-shm", StringComparison.Ordinal) && !path.EndsWith(".new", StringComparison.Ordinal);

    private static void Add(ZipArchive zip, string name, byte[] content)
    {
        using var entry = zip.CreateEntry(name).Open();
        entry.Write(content);
    }
}
