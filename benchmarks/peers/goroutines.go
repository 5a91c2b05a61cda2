// Go, a goroutine a client, after the example in the documentation of package net.
package main

import (
	"bytes"
	"log"
	"net"
	"os"
)

const readBytes = 64 * 1024

func handle(conn net.Conn) {
	defer conn.Close()
	buffer := make([]byte, readBytes)
	for {
		size, err := conn.Read(buffer)
		if err != nil {
			return
		}
		if _, err := conn.Write(bytes.ToUpper(buffer[:size])); err != nil {
			return
		}
	}
}

func main() {
	listener, err := net.Listen("tcp", "127.0.0.1:"+os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	for {
		conn, err := listener.Accept()
		if err != nil {
			log.Fatal(err)
		}
		go handle(conn)
	}
}
