// What both roles share: waiting with a deadline, messages in order, visitors and targets.
import assert from 'node:assert/strict';
import { once } from 'node:events';
import net from 'node:net';

const DEADLINE_MS = 20_000;

/** Runs the scenario that the command line names, and makes the process fail with whatever it throws. */
export async function run(scenarios) {
  const [name, ...rest] = process.argv.slice(2);
  assert.ok(scenarios[name], `no scenario '${name}': ${Object.keys(scenarios).join(', ')}`);
  try {
    await scenarios[name](...rest);
    console.log(`${name}: ok`);
    process.exit(0);
  } catch (error) {
    console.error(error);
    process.exit(1);
  }
}

export function within(promise, what) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: nothing for ${DEADLINE_MS} ms`)), DEADLINE_MS);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** One end of a tunnel: messages are taken in order, by stream where they belong to one. */
export class Peer {
  #waiting = [];
  #queue = [];
  answersPings = false;

  constructor(socket) {
    this.socket = socket;
    socket.on('message', (data, isBinary) => {
      assert.equal(isBinary, false, 'v1 knows text messages only');
      const text = data.toString('utf8');
      const message = JSON.parse(text);
      checkForm(message);
      if (message.type === 'ping' && this.answersPings) this.send({ type: 'pong' });
      else this.#queue.push(message);
      this.#serve();
    });
    this.closed = new Promise(resolve => socket.on('close', (code, reason) => {
      this.#queue.push(null);
      this.#serve();
      resolve({ code, reason: reason.toString() });
    }));
    socket.on('error', () => { /* 'close' follows and says it */ });
  }

  #serve() {
    this.#waiting = this.#waiting.filter(waiter => {
      const index = this.#queue.findIndex(message => message === null || waiter.matches(message));
      if (index < 0) return true;
      if (this.#queue[index] === null) waiter.reject(new Error(`closed while waiting for ${waiter.what}`));
      else waiter.resolve(this.#queue.splice(index, 1)[0]);
      return false;
    });
  }

  /** The next message that matches; others stay for those who want them. */
  take(matches, what) {
    const taken = new Promise((resolve, reject) => this.#waiting.push({ matches, what, resolve, reject }));
    this.#serve();
    return within(taken, what);
  }

  takeType(type) { return this.take(message => message.type === type, type); }

  takeOf(streamId) { return this.take(message => message.stream_id === streamId, `a message of stream ${streamId}`); }

  /** What has come and nobody has taken. */
  get untaken() { return this.#queue.filter(message => message !== null); }

  /** All data of a stream up to its close, or to a number of bytes. */
  async takeData(streamId, length = Infinity) {
    const parts = [];
    for (let received = 0; received < length;) {
      const message = await this.takeOf(streamId);
      if (message.type === 'close') break;
      assert.equal(message.type, 'data');
      const part = Buffer.from(message.data, 'base64');
      parts.push(part);
      received += part.length;
    }
    return Buffer.concat(parts);
  }

  send(message) { this.sendText(typeof message === 'string' ? message : JSON.stringify(message)); }

  sendText(text) { this.socket.send(text); }

  sendData(streamId, bytes) { this.send({ type: 'data', stream_id: streamId, data: Buffer.from(bytes).toString('base64') }); }

  /** Sends one message as several frames. */
  sendInFrames(parts) {
    parts.forEach((part, index) => this.socket.send(part, { binary: false, fin: index === parts.length - 1 }));
  }

  async expectPong() {
    this.send({ type: 'ping' });
    await this.takeType('pong');
  }
}

/** What every message from the other side must be, whatever it says. */
function checkForm(message) {
  const fields = {
    listen: ['port', 'local_addr'],
    listen_ok: ['port'],
    listen_err: ['port', 'error'],
    connect: ['stream_id', 'port'],
    data: ['stream_id', 'data'],
    close: ['stream_id'],
    ping: [],
    pong: [],
  };
  assert.ok(Object.hasOwn(fields, message.type), `unknown type in ${JSON.stringify(message)}`);
  for (const [name, value] of Object.entries(message)) {
    assert.ok(name === 'type' || fields[message.type].includes(name), `${name} in a ${message.type}`);
    assert.ok(value !== 0 && value !== '' && value !== null, `${name} is empty and should be left out`);
  }
  if (message.type === 'data') {
    const bytes = Buffer.from(message.data, 'base64');
    assert.equal(bytes.toString('base64'), message.data, 'standard base64, padded');
    assert.ok(bytes.length >= 1 && bytes.length <= 32 * 1024, `${bytes.length} bytes in one message`);
  }
}

/** A TCP connection whose bytes can be waited for. */
export class Connection {
  #parts = [];
  #length = 0;
  #changed = () => {};
  ended = false;
  broken = false;

  constructor(socket) {
    this.socket = socket;
    socket.on('data', part => { this.#parts.push(part); this.#length += part.length; this.#changed(); });
    socket.on('end', () => { this.ended = true; this.#changed(); });
    socket.on('error', () => { this.ended = this.broken = true; this.#changed(); });
    this.over = new Promise(resolve => socket.on('close', () => { this.ended = true; this.#changed(); resolve(); }));
  }

  async read(length) {
    await within(this.#until(() => this.#length >= length || this.ended), `${length} bytes, of which ${this.#length} are there`);
    const all = Buffer.concat(this.#parts);
    assert.ok(all.length >= length, `ended after ${all.length} of ${length} bytes`);
    this.#parts = [all.subarray(length)];
    this.#length = all.length - length;
    return all.subarray(0, length);
  }

  async readToEnd() {
    await within(this.#until(() => this.ended), 'the end');
    assert.ok(!this.broken, 'reset');
    const all = Buffer.concat(this.#parts);
    this.#parts = [];
    this.#length = 0;
    return all;
  }

  async #until(condition) {
    while (!condition()) await new Promise(resolve => { this.#changed = resolve; });
  }

  write(bytes) { this.socket.write(bytes); }
  end(bytes) { this.socket.end(bytes); }
  reset() { this.socket.resetAndDestroy(); }
}

export async function connectTo(port, host = '127.0.0.1') {
  const socket = net.connect({ port, host, allowHalfOpen: true });
  await within(once(socket, 'connect'), `a connection to ${host}:${port}`);
  return new Connection(socket);
}

/** A server on a loopback port, and its connections in order. */
export async function listen(port = 0) {
  const waiting = [];
  const arrived = [];
  const server = net.createServer({ allowHalfOpen: true }, socket => {
    const connection = new Connection(socket);
    if (waiting.length > 0) waiting.shift()(connection);
    else arrived.push(connection);
  });
  server.listen(port, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: server.address().port,
    close: () => server.close(),
    accept: () => within(
      arrived.length > 0 ? Promise.resolve(arrived.shift()) : new Promise(resolve => waiting.push(resolve)), 'a connection'),
  };
}

/** A number below those that outgoing connections get, on which nobody listens. */
export async function freePort() {
  for (;;) {
    const port = 10_000 + Math.floor(Math.random() * 22_000);
    try {
      (await listen(port)).close();
      return port;
    } catch (error) {
      assert.equal(error.code, 'EADDRINUSE');
    }
  }
}

export function bytes(length) {
  const all = Buffer.alloc(length);
  for (let i = 0; i < length; i++) all[i] = Math.floor(Math.random() * 256);
  return all;
}
