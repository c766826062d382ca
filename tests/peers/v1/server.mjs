// A v1 server, to test a client: node server.mjs SCENARIO
// Says READY with the ports: "server" for the client to dial, "target" and "second" to forward to, "nobody" where none listens.
// The client is started with -forward 9000=TARGET -forward 9001=SECOND -forward 9002=NOBODY.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import { WebSocketServer } from 'ws';
import { Peer, bytes, freePort, listen, run, within } from './peer.mjs';

async function start({ answersPings = true } = {}) {
  const server = new WebSocketServer({ port: 0, host: '127.0.0.1', perMessageDeflate: false });
  await once(server, 'listening');
  const arrived = [];
  const waiting = [];
  server.on('connection', (socket, request) => {
    const peer = new Peer(socket);
    peer.request = request;
    peer.answersPings = answersPings;
    if (waiting.length > 0) waiting.shift()(peer);
    else arrived.push(peer);
  });
  const [target, second] = [await listen(), await listen()];
  const nobody = await freePort();
  console.log(`READY ${JSON.stringify({ server: server.address().port, target: target.port, second: second.port, nobody })}`);
  return {
    target,
    second,
    nobody,
    accept: () => within(arrived.length > 0 ? Promise.resolve(arrived.shift()) : new Promise(resolve => waiting.push(resolve)), 'a client'),
  };
}

/** The client's first words: all of them, in the order in which its user gave them, before any answer. */
async function expectListens(peer, { target, second, nobody }) {
  const expected = [[9000, target.port], [9001, second.port], [9002, nobody]];
  for (const [port, local] of expected)
    assert.deepEqual(await peer.takeType('listen'), { type: 'listen', port, local_addr: `127.0.0.1:${local}` });
}

async function begin() {
  const world = await start();
  const peer = await world.accept();
  await expectListens(peer, world);
  for (const port of [9000, 9001, 9002]) peer.send({ type: 'listen_ok', port });
  return { ...world, peer };
}

async function expectService(peer, target, id) {
  peer.send({ type: 'connect', stream_id: id, port: 9000 });
  peer.sendData(id, 'question');
  const connection = await target.accept();
  assert.equal((await connection.read(8)).toString(), 'question');
  connection.end('answer');
  assert.equal((await peer.takeData(id)).toString(), 'answer');
}

await run({
  async answers_in_any_order_and_form() {
    const world = await start();
    const peer = await world.accept();
    // This WebSocket library selects the first of them, without anybody's asking.
    assert.equal(peer.request.headers['sec-websocket-protocol'], 'vtunnel.v1, vtunnel.v2');
    await expectListens(peer, world);
    peer.send('{"port":9002,"warning":{"code":7},"type":"listen_ok"}');
    peer.send('{"error":"not here","port":9001,"type":"listen_err"}');
    peer.send({ type: 'listen_ok', port: 4242 });
    peer.send({ type: 'news', text: 'nobody knows this type' });
    peer.send({ type: 'listen_ok', port: 9000, stream_id: 0, data: '', local_addr: null });
    peer.send('not JSON');
    peer.send('{"port":9000,"type":"connect","stream_id":4294967295,"remote":"203.0.113.7:1234"}');
    peer.sendData(4294967295, 'hello');
    const connection = await world.target.accept();
    assert.equal((await connection.read(5)).toString(), 'hello');
    connection.end('bye');
    assert.equal((await peer.takeData(4294967295)).toString(), 'bye');
    await expectService(peer, world.target, 1);
    console.log('DONE');
    await within(peer.closed, 'the end of the client');
  },

  async streams_of_all_kinds() {
    const { peer, target, second } = await begin();

    // All sizes, both ways, and split over frames in any way.
    peer.send({ type: 'connect', stream_id: 1, port: 9001 });
    const echo = await second.accept();
    for (const length of [1, 2, 3, 1000, 32 * 1024, 32 * 1024 + 1, 780_000]) {
      const there = bytes(length);
      const text = Buffer.from(JSON.stringify({ data: there.toString('base64'), type: 'data', stream_id: 1 }));
      const at = Math.floor(Math.random() * text.length);
      peer.sendInFrames([text.subarray(0, at), text.subarray(at)]);
      assert.ok((await echo.read(length)).equals(there));
      echo.write(there);
      assert.ok((await peer.takeData(1, length)).equals(there));
    }
    const message = Buffer.from(JSON.stringify({ type: 'data', stream_id: 1, data: bytes(30).toString('base64') }));
    for (let at = 0; at <= message.length; at++) {
      peer.sendInFrames([message.subarray(0, at), message.subarray(at)]);
      await echo.read(30);
    }

    // Targets that are not there, by number and in fact.
    peer.send({ type: 'connect', stream_id: 2, port: 7 });
    assert.equal((await peer.takeOf(2)).type, 'close');
    peer.send({ type: 'connect', stream_id: 3, port: 9002 });
    peer.sendData(3, 'for nobody');
    assert.equal((await peer.takeOf(3)).type, 'close');

    // Data for streams that are not there, and a second goodbye.
    peer.sendData(999, 'for nobody');
    peer.send({ type: 'close', stream_id: 999 });
    peer.send({ type: 'close', stream_id: 3 });

    // Ends from either side, with what came before.
    const much = bytes(500_000);
    peer.send({ type: 'connect', stream_id: 4, port: 9000 });
    const giving = await target.accept();
    giving.end(much);
    assert.ok((await peer.takeData(4)).equals(much));
    peer.send({ type: 'connect', stream_id: 5, port: 9000 });
    peer.sendData(5, much);
    peer.send({ type: 'close', stream_id: 5 });
    const taking = await target.accept();
    assert.ok((await taking.readToEnd()).equals(much));
    taking.end();
    peer.send({ type: 'connect', stream_id: 6, port: 9000 });
    (await target.accept()).reset();
    assert.equal((await peer.takeOf(6)).type, 'close');

    // A stream that is closed before its target has answered.
    for (let id = 100; id < 150; id++) {
      peer.send({ type: 'connect', stream_id: id, port: 9001 });
      peer.send({ type: 'close', stream_id: id });
    }
    await expectService(peer, target, 7);
    assert.deepEqual(peer.untaken.filter(({ stream_id }) => stream_id < 100), []);
  },

  async ids_that_are_used_again() {
    const { peer, target, second } = await begin();

    // When the last stream of this id is over on both sides.
    for (let i = 0; i < 10; i++) {
      peer.send({ type: 'connect', stream_id: 1, port: 9000 });
      peer.sendData(1, `stream ${i}`);
      peer.send({ type: 'close', stream_id: 1 });
      const connection = await target.accept();
      assert.equal((await connection.readToEnd()).toString(), `stream ${i}`);
      connection.end();
    }

    // When the other side may not have dealt with the last one: each is served right or refused.
    for (let i = 0; i < 20; i++) {
      peer.send({ type: 'connect', stream_id: 4, port: 9001 });
      peer.sendData(4, `stream ${i}`);
      peer.send({ type: 'close', stream_id: 4 });
    }
    await expectService(peer, target, 5);
    const refused = peer.untaken.filter(message => message.stream_id === 4);
    assert.ok(refused.every(message => message.type === 'close'));
    for (let i = refused.length; i < 20; i++) {
      const connection = await second.accept();
      assert.match((await connection.readToEnd()).toString(), /^stream \d+$/);
      connection.end();
    }

    // At once, while the target has not read all of the last one's: that arrives whole, or not at all; and the new one is served
    // or refused, but gets nothing of it.
    const tail = bytes(4_000_000);
    peer.send({ type: 'connect', stream_id: 6, port: 9000 });
    const slow = await target.accept();
    slow.socket.pause();
    for (let at = 0; at < tail.length; at += 32 * 1024) peer.sendData(6, tail.subarray(at, at + 32 * 1024));
    peer.send({ type: 'close', stream_id: 6 });
    peer.send({ type: 'connect', stream_id: 6, port: 9001 });
    peer.sendData(6, 'for the new one');
    peer.send({ type: 'close', stream_id: 6 });
    slow.socket.resume();
    assert.ok((await slow.readToEnd()).equals(tail));
    slow.end();
    await expectService(peer, target, 7);
    if (peer.untaken.some(message => message.stream_id === 6)) {
      assert.equal((await peer.takeOf(6)).type, 'close');
    } else {
      const connection = await second.accept();
      assert.equal((await connection.readToEnd()).toString(), 'for the new one');
      connection.end();
    }
    await expectService(peer, target, 6);

    // Out of order: neither may get what was meant for the other.
    peer.send({ type: 'connect', stream_id: 2, port: 9000 });
    const first = await target.accept();
    peer.sendData(2, 'for the first');
    await first.read(13);
    peer.send({ type: 'connect', stream_id: 2, port: 9000 });
    peer.sendData(2, 'for the second');
    assert.equal((await peer.takeOf(2)).type, 'close');
    await within(first.over, 'the end of the first');
    await expectService(peer, target, 3);
  },

  /** The client is started with a short ping interval. */
  async pings_and_silence() {
    const world = await start({ answersPings: false });
    const peer = await world.accept();
    await expectListens(peer, world);
    for (let i = 0; i < 2; i++) {
      await peer.takeType('ping');
      peer.send({ type: 'pong' });
    }

    // Any message counts, not just pong.
    for (let i = 0; i < 3; i++) {
      await peer.takeType('ping');
      peer.send({ type: 'close', stream_id: 12 });
    }

    // From here on nothing: the client must come again, and ask for everything again.
    const next = await world.accept();
    await expectListens(next, world);
    for (const port of [9000, 9001, 9002]) next.send({ type: 'listen_ok', port });
    const answering = setInterval(() => next.send({ type: 'pong' }), 50);
    await expectService(next, world.target, 1);
    clearInterval(answering);
  },

  async goodbyes() {
    const world = await start();
    const offences = [
      [peer => peer.socket.close(1001, 'restarting'), 1001],
      [peer => peer.socket.close(1000), 1000],
      [peer => peer.socket.terminate(), 1006],
      [peer => peer.socket.send(Buffer.from('{"type":"pong"}'), { binary: true }), 1003],
      [peer => peer.send('x'.repeat(1024 * 1024 + 1)), 1009],
      [peer => peer.send('x'.repeat(8_000_000)), 1009],
    ];
    for (const [offend, expected] of offences) {
      const peer = await world.accept();
      await expectListens(peer, world);
      peer.send({ type: 'listen_ok', port: 9000 });
      await expectService(peer, world.target, 1);
      offend(peer);
      assert.equal((await within(peer.closed, 'the close')).code, expected);
    }
    const peer = await world.accept();
    await expectListens(peer, world);
    await expectService(peer, world.target, 1);
  },

  /** Somebody ends the client when this has said GO. */
  async the_client_shuts_down() {
    const { peer, target } = await begin();
    await expectService(peer, target, 1);
    console.log('GO');
    assert.equal((await within(peer.closed, 'the close')).code, 1001);
  },
});
