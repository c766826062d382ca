using System.Text;
using VTunnel.Protocol.Framing;

namespace VTunnel.Protocol.Tests.Framing;

public sealed class WebSocketMaskTests
{
    [Fact]
    public void The_example_of_the_RFC_reads_Hello()
    {
        var payload = Hex("7f9f4d5158");
        WebSocketMask.Apply(payload, BitConverter.ToUInt32(Hex("37fa213d")), 0);
        Assert.Equal("Hello", Encoding.ASCII.GetString(payload));
    }

    /// <summary>Every length around those of vectors, from every position, to every alignment: as the RFC's formula has it.</summary>
    [Fact]
    public void Every_length_and_position_is_masked_byte_by_byte()
    {
        byte[] key = [0x11, 0x22, 0x44, 0x88];
        var random = new Random(7);
        for (var length = 0; length <= 200; length++)
        {
            var payload = new byte[length];
            random.NextBytes(payload);
            for (var position = 0; position < 8; position++)
            {
                var expected = payload.Select((octet, i) => (byte)(octet ^ key[(position + i) % 4])).ToArray();

                // One byte at each end shows whether more was written.
                var copy = new byte[1 + length + 1];
                WebSocketMask.Copy(payload, copy.AsSpan(1), BitConverter.ToUInt32(key), position);
                Assert.Equal([0, .. expected, 0], copy);

                var inPlace = payload.ToArray();
                WebSocketMask.Apply(inPlace, BitConverter.ToUInt32(key), position);
                Assert.Equal(expected, inPlace);
            }
        }
    }

    [Fact]
    public void A_destination_that_is_too_short_is_refused_and_left_as_it_is()
    {
        var destination = new byte[199];
        Assert.Throws<ArgumentOutOfRangeException>("destination", () => WebSocketMask.Copy(new byte[200], destination, 0xdeadbeef, 0));
        Assert.All(destination, octet => Assert.Equal(0, octet));
    }

    [Fact]
    public void A_payload_in_two_parts_is_masked_as_one()
    {
        var whole = Enumerable.Range(0, 150).Select(i => (byte)i).ToArray();
        var expected = whole.ToArray();
        WebSocketMask.Apply(expected, 0xdeadbeef, 0);
        for (var cut = 0; cut <= whole.Length; cut++)
        {
            var parts = whole.ToArray();
            WebSocketMask.Apply(parts.AsSpan(0, cut), 0xdeadbeef, 0);
            WebSocketMask.Apply(parts.AsSpan(cut), 0xdeadbeef, cut);
            Assert.Equal(expected, parts);
        }
    }

    private static byte[] Hex(string text) => Convert.FromHexString(text.Replace(" ", "", StringComparison.Ordinal));
}
