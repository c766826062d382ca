namespace VTunnel.Testing;

/// <summary>A directory that is gone when the test is.</summary>
public sealed class TempDirectory : IDisposable
{
    /// <summary>Makes an empty one.</summary>
    public TempDirectory() => Path = Directory.CreateTempSubdirectory("vtunnel-test-").FullName;

    /// <summary>Its absolute path.</summary>
    public string Path { get; }

    /// <summary>The path of something in it.</summary>
    public string File(params string[] names) => System.IO.Path.Combine([Path, .. names]);

    /// <summary>Writes a text file and gives its path.</summary>
    public string Write(string name, string text)
    {
        var path = File(name);
        System.IO.File.WriteAllText(path, text);
        return path;
    }

    /// <summary>Makes an empty directory in it and gives its path.</summary>
    public string MakeDirectory(string name) => Directory.CreateDirectory(File(name)).FullName;

    /// <inheritdoc />
    public void Dispose()
    {
        // What git stores is read-only, which does not keep its directory from being removed on Unix.
        Directory.Delete(Path, recursive: true);
    }
}
