using System.Text;

namespace VTunnel.Web;

/// <summary>
/// Latin-1 in lower case, for the Host header: Kestrel compares it letter by letter with the host of an absolute URL, which .NET
/// writes in lower case, although names of hosts are the same in any.
/// </summary>
internal sealed class HostEncoding : Encoding
{
    public static readonly HostEncoding Instance = new();

    public override int GetByteCount(char[] chars, int index, int count) => Latin1.GetByteCount(chars, index, count);

    public override int GetBytes(char[] chars, int charIndex, int charCount, byte[] bytes, int byteIndex) =>
        Latin1.GetBytes(chars, charIndex, charCount, bytes, byteIndex);

    public override int GetCharCount(byte[] bytes, int index, int count) => count;

    public override int GetChars(byte[] bytes, int byteIndex, int byteCount, char[] chars, int charIndex)
    {
        for (var i = 0; i < byteCount; i++)
            chars[charIndex + i] = char.ToLowerInvariant((char)bytes[byteIndex + i]);
        return byteCount;
    }

    public override int GetMaxByteCount(int charCount) => charCount;

    public override int GetMaxCharCount(int byteCount) => byteCount;
}
