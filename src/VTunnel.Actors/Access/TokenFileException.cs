namespace VTunnel.Access;

/// <summary>A token file cannot be used; <see cref="Problems"/> says all that is wrong with it.</summary>
public sealed class TokenFileException : Exception
{
    /// <summary>Makes one.</summary>
    /// <param name="path">The file.</param>
    /// <param name="problems">What is wrong and what would be right, one sentence each.</param>
    public TokenFileException(string path, IReadOnlyList<string> problems)
        : base($"{path}: {string.Join("; ", problems)}")
    {
        Path = path;
        Problems = problems;
    }

    /// <summary>The file.</summary>
    public string Path { get; }

    /// <summary>What is wrong, without the name of the file; at least one.</summary>
    public IReadOnlyList<string> Problems { get; }
}
