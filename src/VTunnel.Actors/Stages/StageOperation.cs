using System.Diagnostics.CodeAnalysis;
using System.Runtime.CompilerServices;

namespace VTunnel.Stages;

/// <summary>
/// One asynchronous operation at a time, started and finished inside a stage: a completion elsewhere only wakes the
/// stage, which then takes the result. Nothing is allocated per operation.
/// </summary>
[SuppressMessage("Reliability", "CA2012", Justification = "Each ValueTask is stored once and its result is taken once, after it completed.")]
[SuppressMessage("Usage", "VSTHRD002", Justification = "Results are taken only from completed operations.")]
internal sealed class StageOperation<T>
{
    private readonly Action _onCompleted;
    private ValueTaskAwaiter<T> _awaiter;
    private volatile bool _completed;

    /// <summary>Makes one that calls <paramref name="wake"/>, on any thread, when an operation completes later.</summary>
    public StageOperation(Action wake) => _onCompleted = () =>
    {
        _completed = true;
        wake();
    };

    /// <summary>Whether an operation was started and its result not yet taken.</summary>
    public bool IsPending { get; private set; }

    /// <summary>Whether the result of the pending operation can be taken.</summary>
    public bool IsCompleted => IsPending && _completed;

    /// <summary>Starts; true when the result is there at once.</summary>
    public bool Start(ValueTask<T> operation)
    {
        _awaiter = operation.GetAwaiter();
        IsPending = true;
        if (_awaiter.IsCompleted)
        {
            _completed = true;
            return true;
        }

        _completed = false;
        _awaiter.UnsafeOnCompleted(_onCompleted);
        return false;
    }

    /// <summary>The result of the completed operation, or its exception.</summary>
    public T Take()
    {
        IsPending = false;
        _completed = false;
        var awaiter = _awaiter;
        _awaiter = default;
        return awaiter.GetResult();
    }
}

/// <inheritdoc cref="StageOperation{T}"/>
[SuppressMessage("Reliability", "CA2012", Justification = "Each ValueTask is stored once and its result is taken once, after it completed.")]
[SuppressMessage("Usage", "VSTHRD002", Justification = "Results are taken only from completed operations.")]
internal sealed class StageOperation
{
    private readonly Action _onCompleted;
    private ValueTaskAwaiter _awaiter;
    private volatile bool _completed;

    /// <inheritdoc cref="StageOperation{T}(Action)"/>
    public StageOperation(Action wake) => _onCompleted = () =>
    {
        _completed = true;
        wake();
    };

    /// <inheritdoc cref="StageOperation{T}.IsPending"/>
    public bool IsPending { get; private set; }

    /// <inheritdoc cref="StageOperation{T}.IsCompleted"/>
    public bool IsCompleted => IsPending && _completed;

    /// <inheritdoc cref="StageOperation{T}.Start"/>
    public bool Start(ValueTask operation)
    {
        _awaiter = operation.GetAwaiter();
        IsPending = true;
        if (_awaiter.IsCompleted)
        {
            _completed = true;
            return true;
        }

        _completed = false;
        _awaiter.UnsafeOnCompleted(_onCompleted);
        return false;
    }

    /// <inheritdoc cref="StageOperation{T}.Take"/>
    public void Take()
    {
        IsPending = false;
        _completed = false;
        var awaiter = _awaiter;
        _awaiter = default;
        awaiter.GetResult();
    }
}
