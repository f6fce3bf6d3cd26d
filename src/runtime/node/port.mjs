// Where the SDK meets the harness: one function, given once.

let connected;

/** Makes an SDK call in the name of whoever is running; answers a promise. */
export function call(method, args) {
  if (connected === undefined) throw new Error('@slflows/sdk/v1 works only inside a runtime');
  return connected(method, args);
}

/** For the harness, at its start. */
export function bindCalls(function_) {
  if (connected !== undefined) throw new Error('the SDK is bound already');
  connected = function_;
}
