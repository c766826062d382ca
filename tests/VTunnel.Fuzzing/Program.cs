// Feeds inputs to the readers of the wire formats; docs/fuzzing.md says how to let a fuzzer choose them.
using SharpFuzz;
using VTunnel.Fuzzing;

switch (args)
{
    case ["list"]:
        foreach (var name in FuzzTargets.All.Keys)
            Console.WriteLine(name);
        return 0;

    case [var name] when FuzzTargets.All.TryGetValue(name, out var target):
        Fuzzer.OutOfProcess.Run(stream =>
        {
            using var input = new MemoryStream();
            stream.CopyTo(input);
            target(input.ToArray());
        });
        return 0;

    case [var name, var file] when FuzzTargets.All.TryGetValue(name, out var target) && File.Exists(file):
        target(File.ReadAllBytes(file));
        Console.WriteLine($"{name} bears {file}.");
        return 0;

    default:
        Console.Error.WriteLine($"usage: vtunnel-fuzz list | TARGET [FILE]; targets are {string.Join(", ", FuzzTargets.All.Keys)}; without a file, input comes from afl-fuzz");
        return 2;
}
