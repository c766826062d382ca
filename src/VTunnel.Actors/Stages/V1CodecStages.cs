using Akka.Streams;
using Akka.Streams.Stage;
using Microsoft.Extensions.Logging;
using VTunnel.Diagnostics;
using VTunnel.Protocol.Buffers;
using VTunnel.Protocol.V1;

namespace VTunnel.Stages;

/// <summary>Protocol v1 on the way out: a message becomes JSON text, its payload base64.</summary>
internal sealed class V1EncoderStage : GraphStage<FlowShape<V1Message, ByteSlice>>
{
    private readonly Inlet<V1Message> _in = new("V1Encoder.in");
    private readonly Outlet<ByteSlice> _out = new("V1Encoder.out");

    public V1EncoderStage() => Shape = new FlowShape<V1Message, ByteSlice>(_in, _out);

    public override FlowShape<V1Message, ByteSlice> Shape { get; }

    protected override GraphStageLogic CreateLogic(Attributes inheritedAttributes) => new Logic(this);

    private sealed class Logic : InAndOutGraphStageLogic
    {
        private readonly V1EncoderStage _stage;

        public Logic(V1EncoderStage stage)
            : base(stage.Shape)
        {
            _stage = stage;
            SetHandler(stage._in, this);
            SetHandler(stage._out, this);
        }

        public override void OnPush()
        {
            var message = Grab(_stage._in);
            var text = V1Writer.Write(message);
            message.Payload.Release();
            Push(_stage._out, text);
        }

        public override void OnPull() => Pull(_stage._in);
    }
}

/// <summary>Protocol v1 on the way in. A message that makes no sense is logged and skipped; the session goes on.</summary>
internal sealed class V1DecoderStage : GraphStage<FlowShape<ByteSlice, V1Message>>
{
    private const int MaxLoggedCount = 20;

    private readonly Inlet<ByteSlice> _in = new("V1Decoder.in");
    private readonly Outlet<V1Message> _out = new("V1Decoder.out");
    private readonly ILogger _logger;
    private readonly string _sessionName;

    public V1DecoderStage(ILogger logger, string sessionName)
    {
        _logger = logger;
        _sessionName = sessionName;
        Shape = new FlowShape<ByteSlice, V1Message>(_in, _out);
    }

    public override FlowShape<ByteSlice, V1Message> Shape { get; }

    protected override GraphStageLogic CreateLogic(Attributes inheritedAttributes) => new Logic(this);

    private sealed class Logic : InAndOutGraphStageLogic
    {
        private readonly V1DecoderStage _stage;
        private int _skipped;

        public Logic(V1DecoderStage stage)
            : base(stage.Shape)
        {
            _stage = stage;
            SetHandler(stage._in, this);
            SetHandler(stage._out, this);
        }

        public override void OnPush()
        {
            var text = Grab(_stage._in);
            var read = V1Reader.TryRead(text.Span, out var message, out var error);
            text.Release();
            if (read)
            {
                Push(_stage._out, message!);
                return;
            }

            // A peer that sends nothing but nonsense must not fill the log.
            if (++_skipped <= MaxLoggedCount)
                _stage._logger.MessageSkipped(_stage._sessionName, error!, _skipped == MaxLoggedCount ? " (further ones are not logged)" : "");
            Pull(_stage._in);
        }

        public override void OnPull() => Pull(_stage._in);
    }
}
