using Akka.Actor;
using Microsoft.Extensions.Logging;
using Microsoft.Extensions.Time.Testing;
using VTunnel.Actors.Tests.Testing;
using VTunnel.Bridge.Publishing;
using VTunnel.Bridge.Relay;
using VTunnel.Bridge.State;
using VTunnel.Testing;
using VTunnel.Testing.Diagnostics;

namespace VTunnel.Actors.Tests.Bridge;

/// <summary>What is written down of those who are refused, who may come as fast as they like.</summary>
public sealed class RefusalTests : VirtualTimeKit
{
    [Fact]
    public void Refused_enrolments_are_written_down_one_by_one_at_first_and_then_once_a_second_with_their_number()
    {
        using var folder = new TempDirectory();
        using var log = new CapturedLog();
        using var store = RelayStore.Initialize(folder.File("relay"), "localhost", new Uri("ws://localhost/"));
        var clock = new FakeTimeProvider(TimeProvider.System.GetUtcNow());
        using var refused = new RefusedEnrolments(store, clock, log.CreateLogger("relay"));
        for (var number = 0; number < 5000; number++)
            refused.Add("198.51.100.7", $"stranger-{number}", "there is no such code");

        var details = Read(store);
        Assert.Equal(RefusedEnrolments.AtOnce, details.Count);
        Assert.All(details, detail => Assert.Equal("enrolment: there is no such code", detail));

        clock.Advance(TimeSpan.FromSeconds(1));
        Assert.Equal($"enrolment: there is no such code (the last of {5000 - RefusedEnrolments.AtOnce} since the record before)", Read(store)[^1]);
        Assert.Equal("stranger-4999", store.ReadAudit(null, null, 1)[0].User);

        // Whoever goes on is written down once a second; whoever comes after a while, at once.
        refused.Add("198.51.100.7", "stranger", "there is no such code");
        refused.Add("198.51.100.7", "stranger", "the code expired");
        Assert.Equal(RefusedEnrolments.AtOnce + 1, Read(store).Count);
        clock.Advance(TimeSpan.FromSeconds(1));
        Assert.Equal("enrolment: the code expired (the last of 2 since the record before)", Read(store)[^1]);
        clock.Advance(TimeSpan.FromSeconds(60));
        Assert.Equal(RefusedEnrolments.AtOnce + 2, Read(store).Count);
        refused.Add("198.51.100.7", "late", "there is no such code");
        Assert.Equal(RefusedEnrolments.AtOnce + 3, Read(store).Count);

        // The log says the same.
        Assert.Equal(RefusedEnrolments.AtOnce + 3, log.Lines.Lines.Count(line => line.Contains("An enrolment from 198.51.100.7 was refused", StringComparison.Ordinal)));
    }

    [Fact]
    public void What_was_refused_last_is_written_down_at_the_end()
    {
        using var folder = new TempDirectory();
        using var log = new CapturedLog();
        using var store = RelayStore.Initialize(folder.File("relay"), "localhost", new Uri("ws://localhost/"));
        using (var refused = new RefusedEnrolments(store, new FakeTimeProvider(TimeProvider.System.GetUtcNow()), log.CreateLogger("relay")))
        {
            for (var number = 0; number < RefusedEnrolments.AtOnce + 7; number++)
                refused.Add("198.51.100.7", "stranger", "there is no such code");
        }

        Assert.Equal("enrolment: there is no such code (the last of 7 since the record before)", Read(store)[^1]);
    }

    [Fact]
    public void Refused_and_denied_users_leave_room_for_what_else_is_to_be_written_down()
    {
        using var folder = new TempDirectory();
        using var log = new CapturedLog();
        using var store = new PublisherStore(folder.File("publisher.db"));
        var audit = Watch(Sys.ActorOf(AuditActor.Props(store, "serve-", TimeProvider.System, log.CreateLogger("audit"))));
        foreach (var kind in new[] { "denied", "refused" })
        {
            for (var number = 0; number < 15_000; number++)
                audit.Tell(new AuditRecord(TimeProvider.System.GetUtcNow(), kind, "mallory"));
        }

        audit.Tell(new AuditRecord(TimeProvider.System.GetUtcNow(), "login", "alice"));
        Settle(audit);
        Sys.Stop(audit);
        ExpectTerminated(audit, TestTimeouts.Step);

        Assert.Single(store.ReadAudit("alice", null, 10));
        Assert.InRange(store.ReadAudit("mallory", null, int.MaxValue).Count, 1, 2 * AuditTable.MaxRefusals);
        Assert.Contains(log.Lines.Lines, line => line.Contains("28000 audit records were lost", StringComparison.Ordinal));
    }

    private static List<string?> Read(RelayStore store) =>
        [.. store.ReadAudit(null, null, int.MaxValue).Where(record => record.Kind == "refused").Select(record => record.Detail)];
}
