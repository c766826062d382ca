using System.Diagnostics.CodeAnalysis;
using System.Runtime.CompilerServices;
using VTunnel.Protocol.Buffers;

namespace VTunnel.Stages;

/// <summary>
/// One asynchronous operation at a time, started and finished inside a stage: a completion elsewhere only wakes the
/// stage, which then takes the result. Nothing is allocated per operation.
/// </summary>
[SuppressMessage("Reliability", "CA2012", Justification = "Each ValueTask is stored once and its result is taken once, after it completed.")]
[SuppressMessage("Usage", "VSTHRD002", Justification = "Results are taken only from completed operations.")]
internal sealed class StageOperation<T>
{
    private readonly Action _wake;
    private Action? _onCompleted;
    private ValueTaskAwaiter<T> _awaiter;
    private ByteChunk? _held;
    private int _state;

    /// <summary>Makes one that calls <paramref name="wake"/>, on any thread, when an operation completes later.</summary>
    public StageOperation(Action wake) => _wake = wake;

    /// <summary>Whether an operation was started and its result not yet taken.</summary>
    public bool IsPending => Volatile.Read(ref _state) is OperationState.Running or OperationState.Completed;

    /// <summary>Whether the result of the pending operation can be taken.</summary>
    public bool IsCompleted => Volatile.Read(ref _state) == OperationState.Completed;

    /// <summary>Starts; true when the result is there at once.</summary>
    public bool Start(ValueTask<T> operation)
    {
        _awaiter = operation.GetAwaiter();
        if (_awaiter.IsCompleted)
        {
            Volatile.Write(ref _state, OperationState.Completed);
            return true;
        }

        Volatile.Write(ref _state, OperationState.Running);
        _awaiter.UnsafeOnCompleted(_onCompleted ??= OnCompleted);
        return false;
    }

    /// <summary>The result of the completed operation, or its exception.</summary>
    public T Take()
    {
        Volatile.Write(ref _state, OperationState.Idle);
        var awaiter = _awaiter;
        _awaiter = default;
        return awaiter.GetResult();
    }

    /// <summary>
    /// Leaves an operation that may be under way to itself: when it completes, its result is dropped and
    /// <paramref name="held"/>, which it uses until then, is released. Nothing may be started afterwards.
    /// </summary>
    public void Abandon(ByteChunk? held)
    {
        if (!IsPending)
        {
            held?.Release();
            return;
        }

        _held = held;
        if (Interlocked.CompareExchange(ref _state, OperationState.Abandoned, OperationState.Running) != OperationState.Running)
            Drop();
    }

    private void OnCompleted()
    {
        if (Interlocked.CompareExchange(ref _state, OperationState.Completed, OperationState.Running) == OperationState.Running)
            InlineExecutor.RunHere(_wake);
        else
            Drop();
    }

    private void Drop()
    {
        try
        {
            Take();
        }
        catch (Exception)
        {
            // Whoever would have wanted to know is gone; taken all the same, so that it does not count as unobserved.
        }

        _held?.Release();
        _held = null;
    }
}

/// <inheritdoc cref="StageOperation{T}"/>
[SuppressMessage("Reliability", "CA2012", Justification = "Each ValueTask is stored once and its result is taken once, after it completed.")]
[SuppressMessage("Usage", "VSTHRD002", Justification = "Results are taken only from completed operations.")]
internal sealed class StageOperation
{
    private readonly Action _wake;
    private Action? _onCompleted;
    private ValueTaskAwaiter _awaiter;
    private ByteChunk? _held;
    private int _state;

    /// <inheritdoc cref="StageOperation{T}(Action)"/>
    public StageOperation(Action wake) => _wake = wake;

    /// <inheritdoc cref="StageOperation{T}.IsPending"/>
    public bool IsPending => Volatile.Read(ref _state) is OperationState.Running or OperationState.Completed;

    /// <inheritdoc cref="StageOperation{T}.IsCompleted"/>
    public bool IsCompleted => Volatile.Read(ref _state) == OperationState.Completed;

    /// <inheritdoc cref="StageOperation{T}.Start"/>
    public bool Start(ValueTask operation)
    {
        _awaiter = operation.GetAwaiter();
        if (_awaiter.IsCompleted)
        {
            Volatile.Write(ref _state, OperationState.Completed);
            return true;
        }

        Volatile.Write(ref _state, OperationState.Running);
        _awaiter.UnsafeOnCompleted(_onCompleted ??= OnCompleted);
        return false;
    }

    /// <inheritdoc cref="StageOperation{T}.Take"/>
    public void Take()
    {
        Volatile.Write(ref _state, OperationState.Idle);
        var awaiter = _awaiter;
        _awaiter = default;
        awaiter.GetResult();
    }

    /// <inheritdoc cref="StageOperation{T}.Abandon"/>
    public void Abandon(ByteChunk? held)
    {
        if (!IsPending)
        {
            held?.Release();
            return;
        }

        _held = held;
        if (Interlocked.CompareExchange(ref _state, OperationState.Abandoned, OperationState.Running) != OperationState.Running)
            Drop();
    }

    private void OnCompleted()
    {
        if (Interlocked.CompareExchange(ref _state, OperationState.Completed, OperationState.Running) == OperationState.Running)
            InlineExecutor.RunHere(_wake);
        else
            Drop();
    }

    private void Drop()
    {
        try
        {
            Take();
        }
        catch (Exception)
        {
            // As above: taken so that it does not count as unobserved.
        }

        _held?.Release();
        _held = null;
    }
}

/// <summary>Where a <see cref="StageOperation"/> is.</summary>
file static class OperationState
{
    public const int Idle = 0;
    public const int Running = 1;
    public const int Completed = 2;
    public const int Abandoned = 3;
}
