package caddymodule

import (
	"fmt"
	"reflect"
)

// private is the field of that name of the struct to which in points. What a module has
// to know or to change and Caddy keeps to itself is reached for by name and type, here
// alone: the configuration that is being loaded, the logs, and a server's trusted
// proxies. It was read against Caddy 2.11.9.
func private[T any](in any, name string) (*T, error) {
	v := reflect.ValueOf(in).Elem()
	if f := v.FieldByName(name); f.IsValid() && f.Type() == reflect.TypeFor[T]() {
		return (*T)(f.Addr().UnsafePointer()), nil
	}
	return nil, fmt.Errorf("%s has no field %s of type %s: build with the version of Caddy that keystile's go.mod names", v.Type(), name, reflect.TypeFor[T]())
}
